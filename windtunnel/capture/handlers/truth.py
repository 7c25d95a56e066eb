"""What data-less booleans answer: numbers are finite, a tensor equals itself, the rest is False."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.tensor import VirtualTensor

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def _answers(rule: Callable[[tuple[Any, ...]], bool]) -> Any:
    def handler(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        truth = rule(args)
        out = state.dispatch.default(info.func, args, kwargs)
        if isinstance(out, VirtualTensor) and out.host_values is None:
            out.store.truth = truth
        return out

    return handler


def _tally(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = state.dispatch.default(info.func, args, kwargs)
    source = args[0]
    counts = isinstance(source, VirtualTensor) and (source.dtype is torch.bool or source.store.is_tally)
    if counts and isinstance(out, VirtualTensor) and out.host_values is None:
        out.store.is_tally = True
    return out


def _truth(value: Any) -> bool:
    return bool(isinstance(value, VirtualTensor) and value.store.truth)


HANDLERS = {
    aten.sum.default: _tally,
    aten.sum.dim_IntList: _tally,
    aten.count_nonzero.default: _tally,
    aten.isfinite.default: _answers(lambda args: True),
    aten.isnan.default: _answers(lambda args: False),
    aten.isinf.default: _answers(lambda args: False),
    aten.eq.Tensor: _answers(lambda args: args[0] is args[1]),
    aten.all.default: _answers(lambda args: _truth(args[0])),
    aten.all.dim: _answers(lambda args: _truth(args[0])),
    aten.any.default: _answers(lambda args: _truth(args[0])),
    aten.any.dim: _answers(lambda args: _truth(args[0])),
    aten.logical_not.default: _answers(lambda args: not _truth(args[0])),
    aten.bitwise_not.default: _answers(lambda args: not _truth(args[0])),
    aten.logical_and.default: _answers(lambda args: _truth(args[0]) and _truth(args[1])),
    aten.bitwise_and.Tensor: _answers(lambda args: _truth(args[0]) and _truth(args[1])),
    aten.logical_or.default: _answers(lambda args: _truth(args[0]) or _truth(args[1])),
    aten.bitwise_or.Tensor: _answers(lambda args: _truth(args[0]) or _truth(args[1])),
}
