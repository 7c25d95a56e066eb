"""How to make the results of a call seen before, without asking PyTorch for shapes again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.meta import Meta
from windtunnel.capture.tensor import VirtualTensor, fresh, view_of

Plan = Callable[[tuple[Any, ...], dict[str, Any], list[VirtualTensor]], Any]


def plan_of(
    info: OpInfo,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tensors: list[VirtualTensor],
    out: Any,
) -> Plan | None:
    """A plan that makes results like ``out``, or None where results can't be made from shapes alone."""
    if out is None:
        return _nothing
    if info.writes:
        return _plan_in_place(tensors, out)
    if isinstance(out, VirtualTensor):
        return _plan_single(info, tensors, out)
    if isinstance(out, (tuple, list)):
        return _plan_several(info, tensors, out)
    return None


def is_empty(info: OpInfo, out: Any) -> bool:
    """Whether the result has no elements and nothing is written: then there is nothing to compute.

    Not a view: by a plan it would come without the values of its base, and what is joined with it would lose theirs.
    """
    return isinstance(out, VirtualTensor) and out.meta.numel == 0 and not (info.writes or info.returns_view)


def _nothing(args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[VirtualTensor]) -> None:
    return None


def _plan_in_place(tensors: list[VirtualTensor], out: Any) -> Plan | None:
    if isinstance(out, VirtualTensor):
        position = _position(tensors, out)
        if position == 0:
            return lambda args, kwargs, given: given[0]
        return None if position is None else lambda args, kwargs, given: given[position]
    if isinstance(out, tuple):
        positions = [_position(tensors, item) for item in out]
        if None not in positions:
            return lambda args, kwargs, given: tuple(given[p] for p in positions if p is not None)
    return None


def _plan_single(info: OpInfo, tensors: list[VirtualTensor], out: VirtualTensor) -> Plan | None:
    meta = out.meta
    if info.returns_view:
        position = _base(tensors, out)
        if position == 0:
            return lambda args, kwargs, given: view_of(given[0], meta)
        return None if position is None else lambda args, kwargs, given: view_of(given[position], meta)
    if _base(tensors, out) is not None:
        return None
    return lambda args, kwargs, given: fresh(meta)


def _plan_several(info: OpInfo, tensors: list[VirtualTensor], out: Any) -> Plan | None:
    makers: list[tuple[int, Meta] | None] = []
    for item in out:
        if item is None:
            makers.append(None)
        elif not isinstance(item, VirtualTensor):
            return None
        else:
            base = _base(tensors, item)
            if base is not None and not info.returns_view:
                return None
            makers.append((-1 if base is None else base, item.meta))
    container = type(out) if type(out) in (tuple, list) else tuple

    def make(args: tuple[Any, ...], kwargs: dict[str, Any], given: list[VirtualTensor]) -> Any:
        return container(
            None if maker is None else fresh(maker[1]) if maker[0] < 0 else view_of(given[maker[0]], maker[1])
            for maker in makers
        )

    return make


def _position(tensors: list[VirtualTensor], wanted: Any) -> int | None:
    return next((i for i, tensor in enumerate(tensors) if tensor is wanted), None)


def _base(tensors: list[VirtualTensor], out: VirtualTensor) -> int | None:
    return next((i for i, tensor in enumerate(tensors) if tensor.store is out.store), None)
