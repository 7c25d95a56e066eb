"""Scaled dot product attention as one operation forward and one backward.

``registrations.py`` routes ``scaled_dot_product_attention`` here where the chip's fused kernel takes the
shape. For values the CPU's flash kernels are called directly: autograd keys are excluded inside dispatch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo, op_spec
from windtunnel.capture.meta import contiguous, intern
from windtunnel.capture.tensor import VirtualTensor, fresh, wrap

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def _additive(bias: VirtualTensor | None, query: VirtualTensor) -> torch.Tensor | None:
    """The CPU kernel wants an additive mask."""
    if bias is None:
        return None
    values = bias.host_values
    assert values is not None
    if values.dtype is not torch.bool:
        return values
    return torch.zeros_like(values, dtype=query.dtype).masked_fill_(~values, -math.inf)


def _forward(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    query, key, value = args[:3]
    bias = args[3] if len(args) > 3 else None
    dropout = float(args[4]) if len(args) > 4 else 0.0
    causal = bool(args[5]) if len(args) > 5 else False
    place = state.recorder.reserve()
    batch, heads, length = query.shape[:3]
    if all(t is None or t.host_values is not None for t in (query, key, value, bias)):
        if key.shape[1] != heads:
            groups = heads // key.shape[1]
            key_values = key.host_values.repeat_interleave(groups, 1)
            value_values = value.host_values.repeat_interleave(groups, 1)
        else:
            key_values, value_values = key.host_values, value.host_values
        plain, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            query.host_values,
            key_values,
            value_values,
            dropout,
            causal,
            attn_mask=_additive(bias, query),
            scale=kwargs.get("scale"),
        )
        out, logsumexp = wrap(plain), wrap(lse)
    else:
        width = value.shape[-1]
        # as on real cards: (batch, heads, length, width) laid out with heads inside length
        stride = (length * heads * width, width, heads * width, 1)
        out = fresh(intern(query.dtype, (batch, heads, length, width), stride))
        logsumexp = fresh(contiguous(torch.float32, (batch, heads, length)))
    state.recorder.fill(place, op_spec(info, args, kwargs, (out, logsumexp)))
    seed = fresh(contiguous(torch.int64, ()), torch.zeros((), dtype=torch.int64))
    offset = fresh(contiguous(torch.int64, ()), torch.zeros((), dtype=torch.int64))
    return out, logsumexp, None, None, length, key.shape[2], seed, offset, None


def _backward(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, query, key, value, bias, wanted = args[:6]
    place = state.recorder.reserve()
    if all(t is None or t.host_values is not None for t in (grad, query, key, value, bias)):
        grads = _backward_values(args, kwargs)
    else:
        grads = tuple(fresh(intern(t.dtype, t.meta.shape, t.meta.stride)) for t in (query, key, value))
    bias_grad = None
    if bias is not None and wanted[3]:
        bias_grad = fresh(contiguous(bias.dtype, tuple(bias.shape)))
    state.recorder.fill(place, op_spec(info, args, kwargs, grads))
    return (*grads, bias_grad)


def _backward_values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[VirtualTensor, ...]:
    grad, query, key, value, bias, _, out, logsumexp = args[:8]
    heads, kv_heads = query.shape[1], key.shape[1]
    groups = heads // kv_heads
    key_values = key.host_values.repeat_interleave(groups, 1) if groups > 1 else key.host_values
    value_values = value.host_values.repeat_interleave(groups, 1) if groups > 1 else value.host_values
    plain = aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad.host_values,
        query.host_values,
        key_values,
        value_values,
        out.host_values,
        logsumexp.host_values,
        args[12],
        args[13],
        attn_mask=_additive(bias, query),
        scale=kwargs.get("scale"),
    )
    query_grad, key_grad, value_grad = plain
    if groups > 1:
        key_grad = key_grad.unflatten(1, (kv_heads, groups)).sum(2)
        value_grad = value_grad.unflatten(1, (kv_heads, groups)).sum(2)
    return wrap(query_grad), wrap(key_grad), wrap(value_grad)


HANDLERS = {
    aten._scaled_dot_product_fused_attention_overrideable.default: _forward,
    aten._scaled_dot_product_fused_attention_overrideable_backward.default: _backward,
}
