"""Scaled dot product attention as one operation forward and one backward.

``registrations.py`` routes ``scaled_dot_product_attention`` here where the chip's fused kernel takes the
shape. In values mode it is computed as the chip's fused kernel does (``numerics/attention.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo, op_spec
from windtunnel.capture.meta import contiguous, intern
from windtunnel.capture.tensor import VirtualTensor, fresh, wrap
from windtunnel.numerics.attention import AttentionResult

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def _forward(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    query, key, value = args[:3]
    bias = args[3] if len(args) > 3 else None
    dropout = float(args[4]) if len(args) > 4 else 0.0
    causal = bool(args[5]) if len(args) > 5 else False
    drawn = 0
    place = state.recorder.reserve()
    batch, heads, length = query.shape[:3]
    if state.arithmetic is not None and _all_valued(query, key, value, bias):
        drawn = int(torch.randint(1 << 31, ()).item()) if dropout else 0
        result = state.arithmetic.attention(
            query.host_values,
            key.host_values,
            value.host_values,
            None if bias is None else bias.host_values,
            causal,
            kwargs.get("scale"),
            _kept(drawn, query, key, dropout),
            dropout,
        )
        out, logsumexp = wrap(result.out), wrap(result.logsumexp)
    else:
        width = value.shape[-1]
        # as on real cards: (batch, heads, length, width) laid out with heads inside length
        stride = (length * heads * width, width, heads * width, 1)
        out = fresh(intern(query.dtype, (batch, heads, length, width), stride))
        logsumexp = fresh(contiguous(torch.float32, (batch, heads, length)))
    state.recorder.fill(place, op_spec(info, args, kwargs, (out, logsumexp)))
    seed = fresh(contiguous(torch.int64, ()), torch.tensor(drawn))
    offset = fresh(contiguous(torch.int64, ()), torch.zeros((), dtype=torch.int64))
    return out, logsumexp, None, None, length, key.shape[2], seed, offset, None


def _backward(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, query, key, value, bias, wanted, out, logsumexp = args[:8]
    wants_bias = bool(bias is not None and wanted[3])
    place = state.recorder.reserve()
    gradients: tuple[Any, ...]
    if state.arithmetic is not None and _all_valued(grad, query, key, value, bias):
        found = state.arithmetic.attention_backward(
            grad.host_values,
            query.host_values,
            key.host_values,
            value.host_values,
            AttentionResult(out.host_values, logsumexp.host_values),
            None if bias is None else bias.host_values,
            bool(args[13]),
            kwargs.get("scale"),
            wants_bias,
            _kept(int(args[14].host_values), query, key, float(args[12])),
            float(args[12]),
        )
        gradients = tuple(None if g is None else wrap(g) for g in found)
    else:
        like = (query, key, value)
        parts = [fresh(intern(t.dtype, t.meta.shape, t.meta.stride)) for t in like]
        bias_grad = fresh(contiguous(bias.dtype, tuple(bias.shape))) if wants_bias else None
        gradients = (*parts, bias_grad)
    state.recorder.fill(place, op_spec(info, args, kwargs, gradients[:3]))
    return gradients


def _all_valued(*tensors: VirtualTensor | None) -> bool:
    return all(tensor is None or tensor.host_values is not None for tensor in tensors)


def _kept(seed: int, query: VirtualTensor, key: VirtualTensor, dropout: float) -> torch.Tensor | None:
    """The dropout mask that a seed stands for: drawn again in backward, as fused kernels do."""
    if not dropout:
        return None
    draws = torch.Generator("cpu").manual_seed(seed)
    shape = (*query.shape[:3], key.shape[2])
    return torch.rand(shape, generator=draws) >= dropout


def _flash_forward(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The kernel by its CUDA name, as DTensor and ring attention ask for it: the chip's own kernel runs."""
    query, key, value = args[:3]
    dropout = args[3] if len(args) > 3 else 0.0
    causal = args[4] if len(args) > 4 else False
    own = aten._scaled_dot_product_fused_attention_overrideable.default
    given = (query, key, value, None, dropout, causal, False)
    return _forward(state, state.dispatch.info(own), given, kwargs)


def _flash_backward(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, query, key, value, *rest = args
    own = aten._scaled_dot_product_fused_attention_overrideable_backward.default
    given = (grad, query, key, value, None, [True, True, True, False], *rest)
    return _backward(state, state.dispatch.info(own), given, kwargs)[:3]


HANDLERS = {
    aten._scaled_dot_product_flash_attention.default: _flash_forward,
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._scaled_dot_product_fused_attention_overrideable.default: _forward,
    aten._scaled_dot_product_fused_attention_overrideable_backward.default: _backward,
}
