"""Fused normalisation, rotary embedding and cross entropy, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from windtunnel.capture.virtual_ops.library import define, differentiate, reference_gradients


def _rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    wide = x.float()
    out = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (out if weight is None else out * weight.float()).to(x.dtype)


def _rms_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor | None, ...]:
    found = reference_gradients(lambda a, w: _rms_norm(a, w, eps), (x, weight), (grad,))
    return found[0], found[1] if found[1] is not None else x.new_empty(0)


def _fused_add(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    total = x + residual
    return _rms_norm(total, weight, eps), total


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """x (b, s, h, d); cos, sin (s, r/2): the first r of d dimensions turn."""
    rotary = 2 * cos.shape[-1]
    turned, rest = x[..., :rotary].float(), x[..., rotary:]
    c, s = cos.float()[: x.shape[1], None, :], sin.float()[: x.shape[1], None, :]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        out = torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        out = torch.cat([a * c - b * s, b * c + a * s], -1)
    return torch.cat([out.to(x.dtype), rest], -1)


def _cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, ignore_index: int, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = logits.float()
    losses = functional.cross_entropy(
        wide, targets, ignore_index=ignore_index, label_smoothing=smoothing, reduction="none"
    )
    return losses, wide.logsumexp(-1)


def _cross_entropy_backward(
    grad: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    lse: torch.Tensor,
    ignore_index: int,
    smoothing: float,
) -> torch.Tensor:
    found = reference_gradients(
        lambda x: _cross_entropy(x, targets, ignore_index, smoothing)[0], (logits,), (grad,)
    )
    assert found[0] is not None
    return found[0]


rms_norm = define(
    "rms_norm",
    "(Tensor x, Tensor? weight, float eps) -> Tensor",
    lambda x, weight, eps: x.new_empty(x.shape),
    _rms_norm,
)
rms_norm_backward = define(
    "rms_norm_backward",
    "(Tensor grad, Tensor x, Tensor? weight, float eps) -> (Tensor, Tensor)",
    lambda grad, x, weight, eps: (
        x.new_empty(x.shape),
        x.new_empty(0) if weight is None else weight.new_empty(weight.shape),
    ),
    _rms_norm_backward,
)
fused_add_rms_norm = define(
    "fused_add_rms_norm",
    "(Tensor x, Tensor residual, Tensor? weight, float eps) -> (Tensor, Tensor)",
    lambda x, residual, weight, eps: (x.new_empty(x.shape), x.new_empty(x.shape)),
    _fused_add,
)
rotary = define(
    "rotary",
    "(Tensor x, Tensor cos, Tensor sin, bool interleaved) -> Tensor",
    lambda x, cos, sin, interleaved: x.new_empty(x.shape),
    _rotate,
)
rotary_backward = define(
    "rotary_backward",
    "(Tensor grad, Tensor cos, Tensor sin, bool interleaved) -> Tensor",
    lambda grad, cos, sin, interleaved: grad.new_empty(grad.shape),
    lambda grad, cos, sin, interleaved: _rotate(grad, cos, -sin, interleaved),
)
cross_entropy = define(
    "cross_entropy",
    "(Tensor logits, Tensor targets, int ignore_index, float smoothing) -> (Tensor, Tensor)",
    lambda logits, targets, ignore_index, smoothing: (
        logits.new_empty(logits.shape[:-1], dtype=torch.float32),
        logits.new_empty(logits.shape[:-1], dtype=torch.float32),
    ),
    _cross_entropy,
)
cross_entropy_backward = define(
    "cross_entropy_backward",
    "(Tensor grad, Tensor logits, Tensor targets, Tensor lse, int ignore_index, float smoothing) -> Tensor",
    lambda grad, logits, *_: logits.new_empty(logits.shape),
    _cross_entropy_backward,
)


def _save_norm(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.eps = inputs[2]


def _norm_gradient(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    dx, dweight = rms_norm_backward(grad, x, weight, ctx.eps)
    return dx, dweight if weight is not None else None, None


def _save_fused_add(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(output[1], inputs[2])
    ctx.eps = inputs[3]


def _fused_add_gradient(ctx: Any, grad: torch.Tensor, grad_total: torch.Tensor) -> tuple[Any, ...]:
    total, weight = ctx.saved_tensors
    dx, dweight = rms_norm_backward(grad, total, weight, ctx.eps)
    dx = dx + grad_total
    return dx, dx, dweight if weight is not None else None, None


def _save_rotary(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[1], inputs[2])
    ctx.interleaved = inputs[3]


def _rotary_gradient(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    cos, sin = ctx.saved_tensors
    return rotary_backward(grad, cos, sin, ctx.interleaved), None, None, None


def _save_loss(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[0], inputs[1], output[1])
    ctx.arguments = inputs[2:]


def _loss_gradient(ctx: Any, grad: torch.Tensor, _lse: Any) -> tuple[Any, ...]:
    return cross_entropy_backward(grad, *ctx.saved_tensors, *ctx.arguments), None, None, None


differentiate("rms_norm", _norm_gradient, _save_norm)
differentiate("fused_add_rms_norm", _fused_add_gradient, _save_fused_add)
differentiate("rotary", _rotary_gradient, _save_rotary)
differentiate("cross_entropy", _loss_gradient, _save_loss)
