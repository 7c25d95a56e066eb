"""Indices computed from data-less scores are drawn: router choices, sampled tokens, sort orders.

``--routing`` says how experts are chosen: ``balanced`` (every expert equally often, the default),
``uniform`` (independent draws) or ``power:A`` (popularity of rank r falls as r ** -A). Seeded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import NoticeKind

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def parse_routing(routing: str) -> float | None:
    """The exponent of ``power:A``; 0 for uniform; None for balanced.

    Raises:
        WindtunnelError: E402 for anything else.
    """
    if routing == "balanced":
        return None
    if routing == "uniform":
        return 0.0
    name, _, exponent = routing.partition(":")
    try:
        if name == "power" and float(exponent) >= 0:
            return float(exponent)
    except ValueError:
        pass
    raise WindtunnelError(
        "E402",
        f"no routing named `{routing}`",
        hint="use `--routing balanced`, `uniform` or `power:1.2`",
    )


def choose(rows: int, choices: int, k: int, routing: str, draws: torch.Generator) -> torch.Tensor:
    """``k`` different choices for each of ``rows``. Shape (rows, k), int64."""
    exponent = parse_routing(routing)
    if exponent is None:
        # consecutive numbers are different within a row, and spread evenly over all choices
        order = torch.randperm(choices, generator=draws)
        index = torch.arange(rows * k, dtype=torch.int64).remainder_(choices)
        return order[index].view(rows, k)
    popularity = torch.arange(1, choices + 1, dtype=torch.float32).pow(-exponent)
    popularity = popularity[torch.randperm(choices, generator=draws)]
    # Gumbel top-k: a draw without replacement in proportion to popularity, in blocks to bound memory
    block = max(1, (1 << 22) // choices)
    rows_left, parts = rows, []
    while rows_left > 0:
        n = min(block, rows_left)
        noise = torch.rand(n, choices, generator=draws).clamp_min_(1e-12).log_().neg_().log_().neg_()
        parts.append((noise + popularity.log()).topk(k, dim=1).indices)
        rows_left -= n
    return torch.cat(parts) if parts else torch.empty(0, k, dtype=torch.int64)


def _fill_indices(state: State, indices: VirtualTensor, choices: int, dim: int, k: int) -> None:
    """Give an index tensor drawn values, ``k`` of ``choices`` along ``dim``."""
    meta = indices.meta
    if not state.keeps(meta.dtype, meta.numel) or meta.numel == 0:
        return
    rows = meta.numel // k
    drawn = choose(rows, choices, k, state.routing, state.draws)
    shape = list(meta.shape)
    if shape:
        moved = [*shape[:dim], *shape[dim + 1 :], k]
        drawn = drawn.view(moved).movedim(-1, dim)
    plain = torch.empty_strided(meta.shape, meta.stride, dtype=meta.dtype)
    indices.elem = plain.copy_(drawn.reshape(meta.shape))
    indices.store.valued = True
    state.recorder.notice(NoticeKind.DRAWN, f"{k} of {choices} indices were drawn ({state.routing} routing)")


def _topk(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source: VirtualTensor = args[0]
    values, indices = state.dispatch.default(info.func, args, kwargs)
    if source.host_values is None and source.dim():
        k = int(args[1])
        dim = (int(args[2]) if len(args) > 2 else -1) % source.dim()
        _fill_indices(state, indices, source.shape[dim], dim, k)
    return values, indices


def _argument(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source: VirtualTensor = args[0]
    out = state.dispatch.default(info.func, args, kwargs)
    if source.host_values is None:
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        keepdim = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
        choices = source.meta.numel if dim is None else source.shape[dim]
        _draw_one(state, out, choices, keepdim)
    return out


def _draw_one(state: State, indices: VirtualTensor, choices: int, keepdim: Any) -> None:
    meta = indices.meta
    if not state.keeps(meta.dtype, meta.numel) or meta.numel == 0:
        return
    plain = torch.empty_strided(meta.shape, meta.stride, dtype=meta.dtype)
    plain.copy_(torch.randint(choices, meta.shape, generator=state.draws))
    indices.elem = plain
    indices.store.valued = True
    state.recorder.notice(NoticeKind.DRAWN, f"an index out of {choices} was drawn")


def _extreme(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source: VirtualTensor = args[0]
    values, indices = state.dispatch.default(info.func, args, kwargs)
    if source.host_values is None and source.dim():
        dim = int(args[1]) if len(args) > 1 else int(kwargs.get("dim", 0))
        _draw_one(state, indices, source.shape[dim], None)
    return values, indices


def _sort(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source: VirtualTensor = args[0]
    values, indices = state.dispatch.default(info.func, args, kwargs)
    meta = indices.meta
    if source.host_values is None and source.dim() and state.keeps(meta.dtype, meta.numel):
        dim = int(kwargs.get("dim", args[-2] if len(args) > 2 else (args[1] if len(args) > 1 else -1)))
        dim %= source.dim()
        order = torch.arange(source.shape[dim])
        shape = [1] * source.dim()
        shape[dim] = -1
        plain = torch.empty_strided(meta.shape, meta.stride, dtype=meta.dtype)
        indices.elem = plain.copy_(order.view(shape).expand(meta.shape))
        indices.store.valued = True
        state.recorder.notice(NoticeKind.DRAWN, "a data-less tensor was taken as sorted already")
    return values, indices


def _multinomial(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source: VirtualTensor = args[0]
    if source.host_values is not None:
        return state.dispatch.default(info.func, args, kwargs)
    samples = int(args[1])
    rows = source.shape[0] if source.dim() == 2 else 1
    shape = (rows, samples) if source.dim() == 2 else (samples,)
    drawn = torch.randint(source.shape[-1], shape, generator=state.draws)
    state.recorder.notice(NoticeKind.DRAWN, f"tokens out of {source.shape[-1]} were drawn")
    return state.emit_result(info, args, kwargs, drawn)


HANDLERS = {
    aten.topk.default: _topk,
    aten.argmax.default: _argument,
    aten.argmin.default: _argument,
    aten.max.dim: _extreme,
    aten.min.dim: _extreme,
    aten.sort.default: _sort,
    aten.sort.stable: _sort,
    aten.multinomial.default: _multinomial,
}
