"""Tensors filled with one number hold it, whatever they were shaped after: ``zeros_like`` of logits, say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.tensor import VirtualTensor

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def _filled(number: Callable[[tuple[Any, ...]], Any]) -> Callable[..., Any]:
    """A handler for an operator whose result is ``number(args)`` everywhere."""

    def handler(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = state.dispatch.default(info.func, args, kwargs)
        if isinstance(out, VirtualTensor) and out.host_values is None:
            _hold(state, out, number(args))
        return out

    return handler


def _hold(state: State, tensor: VirtualTensor, number: Any) -> None:
    meta, store = tensor.meta, tensor.store
    whole = meta.offset == 0 and meta.storage_bytes == store.nbytes
    if whole and not isinstance(number, torch.Tensor) and state.keeps(meta.dtype, meta.numel):
        tensor.elem = torch.empty_strided(meta.shape, meta.stride, dtype=meta.dtype).fill_(number)
        store.valued = True


_zero, _one = _filled(lambda args: 0), _filled(lambda args: 1)
HANDLERS = {
    aten.zeros_like.default: _zero,
    aten.new_zeros.default: _zero,
    aten.zero_.default: _zero,
    aten.ones_like.default: _one,
    aten.new_ones.default: _one,
    aten.full_like.default: _filled(lambda args: args[1]),
    aten.new_full.default: _filled(lambda args: args[2]),
    aten.fill_.Scalar: _filled(lambda args: args[1]),
}
