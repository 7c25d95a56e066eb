"""Indexing by masks: shapes follow from the mask's values, which small masks have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo, op_spec
from windtunnel.capture.meta import contiguous
from windtunnel.capture.tensor import VirtualTensor, fresh
from windtunnel.program.program import NoticeKind

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def _index(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source, indices = args[0], args[1]
    expanded: list[Any] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            expanded.append(index)
            continue
        mask = index.host_values if isinstance(index, VirtualTensor) else index
        if mask is None:
            raise state.policy.refusal("indexing by a boolean mask has a shape that depends on data")
        state.wait_for_host_read(index)
        expanded.extend(state.card_tensor(part) for part in mask.nonzero(as_tuple=True))
    expanded = [
        state.card_tensor(index)
        if isinstance(index, torch.Tensor) and not isinstance(index, VirtualTensor)
        else index
        for index in expanded
    ]
    return state.dispatch.default(info.func, (source, expanded, *args[2:]), kwargs)


def _index_put(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    indices = [
        state.card_tensor(index)
        if isinstance(index, torch.Tensor) and not isinstance(index, VirtualTensor)
        else index
        for index in args[1]
    ]
    return state.dispatch.default(info.func, (args[0], indices, *args[2:]), kwargs)


def _embedding(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if state.on_embedding is not None and isinstance(args[1], torch.Tensor):
        state.on_embedding(args[1])
    return state.dispatch.default(info.func, args, kwargs)


def _masked_select(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As many elements as a mask with values says, of a source that may have none."""
    source, mask = args
    chosen = mask.host_values if isinstance(mask, VirtualTensor) else mask
    if chosen is None or (isinstance(source, VirtualTensor) and source.host_values is not None):
        return state.dispatch.default(info.func, args, kwargs)
    state.wait_for_host_read(mask)
    shape = torch.broadcast_shapes(source.shape, chosen.shape)
    count = int(chosen.expand(shape).sum())
    place = state.recorder.reserve()
    out = fresh(contiguous(source.dtype, (count,)))
    state.recorder.fill(place, op_spec(info, args, kwargs, out))
    return out


def _scatter_value(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Ones at known places (a router's map): integers without data around them are taken to be 0."""
    table, dim, index, value = args[:4]
    places = index.host_values if isinstance(index, VirtualTensor) else index
    unknown = isinstance(table, VirtualTensor) and table.host_values is None
    if not unknown or places is None or table.dtype.is_floating_point or kwargs:
        return state.dispatch.default(info.func, args, kwargs)
    if not state.keeps(table.dtype, table.numel()):
        return state.dispatch.default(info.func, args, kwargs)
    state.recorder.notice(
        NoticeKind.ASSUMED, "integers without data were taken to be 0 around scattered ones"
    )
    zeros = torch.zeros(table.shape, dtype=table.dtype)
    return state.emit_result(info, args, kwargs, zeros.scatter(dim, places, value))


HANDLERS = {
    aten.scatter.value: _scatter_value,
    aten.masked_select.default: _masked_select,
    aten.embedding.default: _embedding,
    aten.index.Tensor: _index,
    aten.index_put_.default: _index_put,
    aten.index_put.default: _index_put,
}
