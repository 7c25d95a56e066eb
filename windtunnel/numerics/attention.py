"""Scaled dot-product attention as fused kernels compute it: two tensor-core products around an FP32 softmax.

The scores stay in FP32; the unnormalised weights exp(s - max) are rounded to the dtype of the operands before
they meet V, and the sum of weights divides the FP32 result, as FlashAttention-2 does (arXiv 2307.08691). The
running maximum of its blocks is replaced by the maximum of the row, which rescales by powers that cancel:
results differ from a blocked kernel by the rounding of the weights only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.matmul import IEEE, MathMode, wide_product
from windtunnel.numerics.profiles import NumericProfile


@dataclass(frozen=True, slots=True)
class AttentionResult:
    """Attributes:
    out: [..., queries, v head dim] in the dtype of the operands.
    logsumexp: FP32 [..., queries], natural logarithm; -inf for a row that attends to nothing.
    """

    out: Tensor
    logsumexp: Tensor


@dataclass(frozen=True, slots=True)
class AttentionGradients:
    """Gradients of query, key, value; ``mask`` only where an additive mask asked for one (FP32)."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None


def chip_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    profile: NumericProfile,
    mode: MathMode = IEEE,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    keep: Tensor | None = None,
    dropout: float = 0.0,
) -> AttentionResult:
    """Attention of query [..., H, Q, D], key [..., H or fewer, K, D], value [..., same, K, Dv].

    Args:
        mask: boolean (True attends) or additive, broadcast to [..., H, Q, K].
        is_causal: query i sees keys 0 to i.
        enable_gqa: keys and values have fewer heads, each shared by consecutive query heads.
        keep: boolean dropout mask [..., H, Q, K], True where a weight stays; with its rate ``dropout``.

    Returns:
        zeros for a row that attends to nothing, as fused kernels give.

    Raises:
        WindtunnelError: E704 shapes that do not fit, E702 precision that the chip lacks.
    """
    key, value = _shared(query, key, value, enable_gqa)
    scores = _scores(query, key, mask, profile, mode, is_causal, scale)
    highest = (
        scores.amax(-1, keepdim=True)
        if scores.shape[-1]
        else scores.new_full((*scores.shape[:-1], 1), -math.inf)
    )
    highest = highest.masked_fill(highest == -math.inf, 0.0)
    weights = torch.exp(scores - highest)
    total = weights.sum(-1, keepdim=True)
    if keep is not None:
        weights = weights * keep / (1.0 - dropout)
    wide = wide_product(weights.to(value.dtype), value, profile, mode)
    empty = total == 0
    out = (wide / total.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)
    return AttentionResult(out.to(query.dtype), (highest + total.log()).squeeze(-1).float())


def chip_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    result: AttentionResult,
    mask: Tensor | None = None,
    *,
    profile: NumericProfile,
    mode: MathMode = IEEE,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    keep: Tensor | None = None,
    dropout: float = 0.0,
    mask_gradient: bool = False,
) -> AttentionGradients:
    """The five products of FlashAttention-2's backward pass, from the saved output and log-sum-exp.

    Weights and score gradients are rounded to the dtype of the operands before each product.
    """
    groups = query.shape[-3] // max(1, key.shape[-3]) if enable_gqa else 1
    shared_key, shared_value = _shared(query, key, value, enable_gqa)
    factor = _factor(query, scale)
    scores = _scores(query, shared_key, mask, profile, mode, is_causal, scale)
    lse = result.logsumexp.to(scores.dtype).unsqueeze(-1)
    weights = torch.exp(scores - lse.masked_fill(lse == -math.inf, 0.0)).masked_fill(lse == -math.inf, 0.0)
    dropped = weights if keep is None else weights * keep / (1.0 - dropout)

    def product(x: Tensor, y: Tensor) -> Tensor:
        return wide_product(x.to(query.dtype), y, profile, mode)

    grad_value = product(dropped.transpose(-1, -2), grad)
    grad_weights = product(grad, shared_value.transpose(-1, -2))
    if keep is not None:
        grad_weights = grad_weights * keep / (1.0 - dropout)
    row = (grad.to(scores.dtype) * result.out.to(scores.dtype)).sum(-1, keepdim=True)
    grad_scores = weights * (grad_weights - row)
    grad_query = product(grad_scores, shared_key) * factor
    grad_key = product(grad_scores.transpose(-1, -2), query) * factor
    return AttentionGradients(
        grad_query.to(query.dtype),
        _gathered(grad_key, groups).to(key.dtype),
        _gathered(grad_value, groups).to(value.dtype),
        grad_scores.sum_to_size(mask.shape) if mask_gradient and mask is not None else None,
    )


def _scores(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    profile: NumericProfile,
    mode: MathMode,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    scores = wide_product(query, key.transpose(-1, -2), profile, mode) * _factor(query, scale)
    if is_causal:
        seen = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is None:
        return scores
    if mask.dtype is torch.bool:
        return scores.masked_fill(~mask, -math.inf)
    return scores + mask.to(scores.dtype)


def _factor(query: Tensor, scale: float | None) -> float:
    return 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale


def _shared(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor]:
    heads_fit = not enable_gqa or (key.shape[-3] and query.shape[-3] % key.shape[-3] == 0)
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2] or not heads_fit:
        raise WindtunnelError(
            "E704",
            "query, key and value do not fit together",
            hint="head dimensions of query and key, lengths of key and value must agree; heads must divide",
            values={"query": tuple(query.shape), "key": tuple(key.shape), "value": tuple(value.shape)},
        )
    if not enable_gqa:
        return key, value
    groups = query.shape[-3] // key.shape[-3]
    return key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)


def _gathered(grad: Tensor, groups: int) -> Tensor:
    return grad if groups == 1 else grad.reshape(*grad.shape[:-3], -1, groups, *grad.shape[-2:]).sum(-3)
