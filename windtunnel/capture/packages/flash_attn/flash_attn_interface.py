"""Functions of FlashAttention 2.8. Layout (batch, length, heads, head_dim)."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from windtunnel.capture.virtual_ops import attention as ops

MAX_HEAD_DIM = 256


def _check(*tensors: torch.Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype not in (torch.float16, torch.bfloat16):
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        if tensor.shape[-1] > MAX_HEAD_DIM:
            raise RuntimeError(f"FlashAttention forward only supports head dimension at most {MAX_HEAD_DIM}")


def _arguments(
    q: torch.Tensor, softmax_scale: float | None, causal: bool, window_size: tuple[int, int]
) -> tuple[float, bool, int]:
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    return scale, causal or window_size[1] == 0, int(window_size[0])


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """Attention of q (b, s, h, d) with k, v (b, t, kv_h, d)."""
    _check(q, k, v)
    out, lse = ops.flash_attention(q, k, v, *_arguments(q, softmax_scale, causal, window_size))
    return (out, lse, None) if return_attn_probs else out


def flash_attn_qkvpacked_func(qkv: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """qkv (b, s, 3, h, d)."""
    return flash_attn_func(*qkv.unbind(2), *args, **kwargs)


def flash_attn_kvpacked_func(q: torch.Tensor, kv: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """kv (b, s, 2, h, d)."""
    return flash_attn_func(q, *kv.unbind(2), *args, **kwargs)


def _lengths(cumulative: torch.Tensor) -> list[int]:
    edges = cumulative.tolist()
    return [end - begin for begin, end in itertools.pairwise(edges)]


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> Any:
    """Sequences of different lengths end to end: q (tokens, h, d), k, v (tokens, kv_h, d)."""
    _check(q, k, v)
    if block_table is not None:
        raise NotImplementedError("paged keys are offered by flash_attn_with_kvcache")
    out, lse = ops.flash_attention_varlen(
        q,
        k,
        v,
        *_arguments(q, softmax_scale, causal, window_size),
        _lengths(cu_seqlens_q),
        _lengths(cu_seqlens_k),
    )
    return (out, lse, None) if return_attn_probs else out


def flash_attn_varlen_qkvpacked_func(
    qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, *args: Any, **kwargs: Any
) -> Any:
    """qkv (tokens, 3, h, d)."""
    q, k, v = qkv.unbind(1)
    return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, *args, **kwargs)


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    cache_seqlens: Any = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """One step against a cache (b, capacity, kv_h, d) whose first ``cache_seqlens`` positions are used.

    New keys and values are written behind them; all sequences must have one length.
    """
    _check(q, k_cache, v_cache)
    used = _one_length(cache_seqlens, k_cache.shape[1])
    if k is not None and v is not None:
        k_cache[:, used : used + k.shape[1]] = k
        v_cache[:, used : used + v.shape[1]] = v
        used += k.shape[1]
    arguments = _arguments(q, softmax_scale, causal, window_size)
    out, _ = ops.flash_attention(q, k_cache[:, :used], v_cache[:, :used], *arguments)
    return out


def _one_length(cache_seqlens: Any, capacity: int) -> int:
    if cache_seqlens is None:
        return capacity
    if isinstance(cache_seqlens, int):
        return cache_seqlens
    lengths = set(cache_seqlens.tolist())
    if len(lengths) != 1:
        raise NotImplementedError("a cache of sequences with different lengths")
    return int(lengths.pop())
