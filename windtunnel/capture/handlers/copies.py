"""Copies between host and card, and what the host sees of data-less tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from windtunnel.capture import pinned
from windtunnel.capture.describe import OpInfo
from windtunnel.capture.meta import Meta, meta_of
from windtunnel.capture.tensor import VirtualTensor, inner, shape_only
from windtunnel.program import kernels, marks

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten

_FILL_LIMIT = 1 << 20
"""Larger host copies of data-less tensors are zeros that take no memory until somebody writes to them."""


def _copy(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    target, source = args[0], args[1]
    non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if not isinstance(source, VirtualTensor):
        _host_to_device(state, target, source, non_blocking)
        return target
    if not isinstance(target, VirtualTensor):
        _device_to_host(state, source, target, non_blocking)
        return target
    out = state.dispatch.default(info.func, args, kwargs)
    values = source.host_values
    if values is not None:
        _take_values(state, target, values)
    return out


def _take_values(state: State, target: VirtualTensor, values: torch.Tensor) -> None:
    """A whole storage overwritten by values holds values again."""
    if target.host_values is not None:
        target.host_values.copy_(values)
        return
    whole = target.meta.storage_bytes == target.store.nbytes
    if whole and target.meta.offset == 0 and state.keeps(target.dtype, target.meta.numel):
        plain = torch.empty_strided(target.meta.shape, target.meta.stride, dtype=target.dtype)
        target.elem = plain.copy_(values)
        target.store.valued = True


def _host_to_device(state: State, target: VirtualTensor, source: torch.Tensor, non_blocking: bool) -> None:
    is_pinned = pinned.is_pinned(source)
    state.recorder.emit(
        kernels.HOST_COPY,
        (meta_of(source),),
        (target.meta,),
        direction="h2d",
        pinned=is_pinned,
        non_blocking=non_blocking,
    )
    if not (is_pinned and non_blocking):
        state.recorder.emit(marks.STREAM_SYNCHRONIZE)
    if source.is_meta:
        target.store.valued = False
    else:
        _take_values(state, target, source)


def _device_to_host(state: State, source: VirtualTensor, target: torch.Tensor, non_blocking: bool) -> None:
    _record_to_host(state, source.meta, meta_of(target), non_blocking)
    values = source.host_values
    if values is not None:
        target.copy_(values)
    else:
        _placeholder(state, source, target)


def _record_to_host(state: State, source: Meta, target: Meta, non_blocking: bool) -> None:
    state.recorder.emit(
        kernels.HOST_COPY, (source,), (target,), direction="d2h", pinned=False, non_blocking=non_blocking
    )
    if not non_blocking:
        state.recorder.emit(marks.STREAM_SYNCHRONIZE)


def _placeholder(state: State, source: VirtualTensor, target: torch.Tensor) -> None:
    if target.is_meta:
        return
    if target.numel() > _FILL_LIMIT and not state.policy.assuming:
        state.policy.left("keep what the host's tensor held")
    else:
        target.fill_(state.policy.copied(source, target.dtype))


def _stand_in(state: State, source: VirtualTensor, shape: torch.Tensor) -> torch.Tensor:
    """A new host tensor laid out like ``shape`` for a data-less one."""
    if shape.numel() > _FILL_LIMIT and not state.policy.assuming:
        state.policy.left("read as 0")
        span = 1 + sum((n - 1) * step for n, step in zip(shape.shape, shape.stride(), strict=True))
        pages = torch.from_numpy(np.zeros(span * shape.dtype.itemsize, dtype=np.uint8))
        return pages.view(shape.dtype).as_strided(shape.shape, shape.stride())
    out = torch.empty_strided(shape.shape, shape.stride(), dtype=shape.dtype)
    return out.fill_(state.policy.copied(source, shape.dtype))


def _to_copy(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source = args[0]
    device = kwargs.get("device")
    if device is None or not isinstance(source, VirtualTensor):
        return _still_tally(source, state.dispatch.default(info.func, args, kwargs))
    kind = torch.device(device).type
    if kind == "meta":
        return info.func(shape_only(source), **kwargs)
    if kind != "cpu":
        kwargs = {name: value for name, value in kwargs.items() if name != "device"}
        return _still_tally(source, state.dispatch.default(info.func, args, kwargs))
    plain = {name: value for name, value in kwargs.items() if name not in ("non_blocking", "pin_memory")}
    values = source.host_values
    if values is not None:
        out = info.func(values, **plain)
        out = out.clone() if out.data_ptr() == values.data_ptr() else out
        _record_to_host(state, source.meta, meta_of(out), bool(kwargs.get("non_blocking")))
        return out
    shape = info.func(inner(source), **{**plain, "device": state.meta_device})
    _record_to_host(state, source.meta, meta_of(shape), bool(kwargs.get("non_blocking")))
    return _stand_in(state, source, shape)


def _still_tally(source: Any, out: Any) -> Any:
    """A boolean that reads as False is an integer that reads as 0."""
    is_false = isinstance(source, VirtualTensor) and source.dtype is torch.bool and not source.store.truth
    shadow = isinstance(out, VirtualTensor) and out.host_values is None
    if is_false and shadow and not out.dtype.is_floating_point:
        out.store.is_tally = True
    return out


def _record_stream(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    return None


def _is_pinned(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return False


HANDLERS = {
    aten.copy_.default: _copy,
    aten._to_copy.default: _to_copy,
    aten.record_stream.default: _record_stream,
    aten.is_pinned.default: _is_pinned,
}
