"""Short causal depthwise convolution along the sequence, as Mamba and Gated DeltaNet use it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from windtunnel.capture.virtual_ops.library import define, differentiate, reference_gradients


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, silu: bool) -> torch.Tensor:
    """x (b, channels, s), weight (channels, width); the output at t sees x up to t."""
    width = weight.shape[-1]
    padded = functional.pad(x.float(), (width - 1, 0))
    wide_bias = None if bias is None else bias.float()
    out = functional.conv1d(padded, weight.float()[:, None], wide_bias, groups=weight.shape[0])
    return (functional.silu(out) if silu else out).to(x.dtype)


def _backward_shape(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, silu: bool
) -> tuple[torch.Tensor, ...]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


def _backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, silu: bool
) -> tuple[torch.Tensor | None, ...]:
    found = reference_gradients(lambda a, w, b: _convolve(a, w, b, silu), (x, weight, bias), (grad,))
    return found[0], found[1], found[2] if found[2] is not None else weight.new_zeros(weight.shape[0])


def _update(
    x: torch.Tensor,
    state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
) -> torch.Tensor:
    """One or a few new positions; the state keeps the last inputs and is written."""
    joined = torch.cat([state, x], -1)
    state.copy_(joined[..., -state.shape[-1] :])
    return _convolve(joined, weight, bias, silu)[..., -x.shape[-1] :].contiguous()


causal_conv1d = define(
    "causal_conv1d",
    "(Tensor x, Tensor weight, Tensor? bias, bool silu) -> Tensor",
    lambda x, weight, bias, silu: x.new_empty(x.shape),
    _convolve,
)
causal_conv1d_backward = define(
    "causal_conv1d_backward",
    "(Tensor grad, Tensor x, Tensor weight, Tensor? bias, bool silu) -> (Tensor, Tensor, Tensor)",
    _backward_shape,
    _backward,
)
causal_conv1d_update = define(
    "causal_conv1d_update",
    "(Tensor x, Tensor(a!) state, Tensor weight, Tensor? bias, bool silu) -> Tensor",
    lambda x, state, weight, bias, silu: x.new_empty(x.shape),
    _update,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.silu = inputs[3]


def _gradient(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    x, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = causal_conv1d_backward(grad.contiguous(), x, weight, bias, ctx.silu)
    return dx, dweight, dbias if bias is not None else None, None


differentiate("causal_conv1d", _gradient, _save)
