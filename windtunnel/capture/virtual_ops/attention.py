"""Flash attention: fixed and variable length, forward and backward. Layout (batch, length, heads, dim)."""

from __future__ import annotations

from typing import Any

import torch

from windtunnel.capture.virtual_ops.library import define, differentiate, reference_gradients

_ARGUMENTS = "float scale, bool causal, int window"
_VARLEN = f"{_ARGUMENTS}, int[] q_lens, int[] kv_lens"


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of one batch in float32. Causal masks align the ends, as flash attention 2.1 and later."""
    groups = q.shape[2] // k.shape[2]
    query = q.transpose(1, 2).float()
    key = k.transpose(1, 2).float().repeat_interleave(groups, 1)
    value = v.transpose(1, 2).float().repeat_interleave(groups, 1)
    scores = query @ key.transpose(-1, -2) * scale
    rows, columns = scores.shape[-2:]
    offset = torch.arange(rows)[:, None] + (columns - rows) - torch.arange(columns)[None, :]
    hidden = torch.zeros(rows, columns, dtype=torch.bool)
    if causal:
        hidden |= offset < 0
    if window >= 0:
        hidden |= offset > window
    scores = scores.masked_fill(hidden, float("-inf"))
    lse = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - lse.masked_fill(lse.isinf(), 0.0)[..., None])
    return (weights @ value).transpose(1, 2).to(q.dtype), lse


def _shape(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, length, heads, _ = q.shape
    out = q.new_empty(batch, length, heads, v.shape[-1])
    return out, q.new_empty(batch, heads, length, dtype=torch.float32)


def _backward_shape(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, ...]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    scale: float,
    causal: bool,
    window: int,
) -> tuple[torch.Tensor | None, ...]:
    return reference_gradients(lambda a, b, c: _attend(a, b, c, scale, causal, window)[0], (q, k, v), (grad,))


def _attend_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    causal: bool,
    window: int,
    q_lens: list[int],
    kv_lens: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [
        _attend(a[None], b[None], c[None], scale, causal, window)
        for a, b, c in zip(q.split(q_lens), k.split(kv_lens), v.split(kv_lens), strict=True)
    ]
    return torch.cat([out[0] for out, _ in parts]), torch.cat([lse[0] for _, lse in parts], -1)


def _varlen_shape(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, _dim = q.shape
    return q.new_empty(tokens, heads, v.shape[-1]), q.new_empty(heads, tokens, dtype=torch.float32)


def _varlen_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    *arguments: Any,
) -> tuple[torch.Tensor | None, ...]:
    return reference_gradients(lambda a, b, c: _attend_varlen(a, b, c, *arguments)[0], (q, k, v), (grad,))


flash_attention = define(
    "flash_attention", f"(Tensor q, Tensor k, Tensor v, {_ARGUMENTS}) -> (Tensor, Tensor)", _shape, _attend
)
flash_attention_backward = define(
    "flash_attention_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    _backward_shape,
    _backward,
)
flash_attention_varlen = define(
    "flash_attention_varlen",
    f"(Tensor q, Tensor k, Tensor v, {_VARLEN}) -> (Tensor, Tensor)",
    _varlen_shape,
    _attend_varlen,
)
flash_attention_varlen_backward = define(
    "flash_attention_varlen_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{_VARLEN}) -> (Tensor, Tensor, Tensor)",
    _backward_shape,
    _varlen_backward,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.arguments = inputs[3:]
    ctx.set_materialize_grads(False)


def _differentiate(name: str, operator: Any) -> None:
    def backward(ctx: Any, grad: torch.Tensor, _lse_grad: Any) -> tuple[Any, ...]:
        gradients = operator(grad, *ctx.saved_tensors, *ctx.arguments)
        return (*gradients, *(None for _ in ctx.arguments))

    differentiate(name, backward, _save)


_differentiate("flash_attention", flash_attention_backward)
_differentiate("flash_attention_varlen", flash_attention_varlen_backward)
