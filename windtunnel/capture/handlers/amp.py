"""Gradient scaling: data-less gradients are finite, or every optimizer step would be skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo, op_spec

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def _unscale(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    gradients, found_inf = args[0], args[1]
    if all(gradient.host_values is not None for gradient in gradients):
        state.dispatch.default(info.func, args, kwargs)
        return
    state.recorder.op(state.recorder.spec_number(op_spec(info, args, kwargs, None)))
    for gradient in gradients:
        gradient.store.valued = False
    found_inf.elem = torch.zeros(found_inf.shape)
    found_inf.store.valued = True


def _update_scale(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if all(tensor.host_values is not None for tensor in args[:3]):
        return state.dispatch.default(info.func, args, kwargs)
    state.recorder.op(state.recorder.spec_number(op_spec(info, args, kwargs, args[0])))
    return args[0]


HANDLERS = {
    aten._amp_foreach_non_finite_check_and_unscale_.default: _unscale,
    aten._amp_update_scale_.default: _update_scale,
}
