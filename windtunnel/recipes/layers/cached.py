"""Mixers of an inference step: attention over a cache of keys and values, latent vectors or states.

A step holds sequences in groups of equal shape (``Batch``): each of ``sequences`` appends ``new`` tokens to
``context`` tokens in the cache. Few new tokens run the decode kernels, more the prefill kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from windtunnel.program import kernels
from windtunnel.program.op import OpSpec
from windtunnel.recipes.architecture import GatedDelta, GroupedQuery, Latent
from windtunnel.recipes.layers.attention import split_heads
from windtunnel.recipes.piece import op, tensor

PAGE = 64
DECODE_MAX = 16
"""New tokens up to which a group runs the decode kernels (speculative tokens included)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Sequences of one shape in a forward step."""

    sequences: int
    new: int = 1
    context: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that this group puts through the layers."""
        return self.sequences * self.new

    @property
    def decodes(self) -> bool:
        """Whether the decode kernels run."""
        return self.new <= DECODE_MAX and self.context > 0


def softmax_core(shape: GroupedQuery, ways: int, batch: Batch, dtype: str, cache: str) -> list[OpSpec]:
    """Attention of one group over a paged cache, after its keys and values were written there."""
    heads, kv_heads = split_heads(shape.heads, ways), split_heads(shape.kv_heads, ways)
    d, chunk = shape.head_dim, shape.chunk
    tokens = batch.tokens
    if chunk:
        batch = within_chunk(batch, chunk)
    kv = tensor(dtype, tokens, kv_heads, d)
    length = batch.context + batch.new
    slots = tensor(cache, tokens, kv_heads, d)
    write = op(kernels.FUSED, (kv, kv), (slots, slots), ops=1)
    q = tensor(dtype, batch.sequences, batch.new, heads, d)
    if batch.decodes:
        pages = tensor(cache, -(-length * batch.sequences // PAGE), PAGE, kv_heads, d)
        window = shape.window or -1
        stretches = {"chunk": chunk} if chunk else {}
        paged = op(
            kernels.PAGED_ATTENTION, (q, pages, pages), (q,), causal=True, kv_len=length, window=window,
            **stretches,
        )  # fmt: skip
        return [write, paged]
    k = tensor(dtype, batch.sequences, length, kv_heads, d)
    flash = op(kernels.FLASH_ATTENTION, (q, k, k), (q,), causal=shape.causal, window=shape.window or -1)
    return [write, flash]


def within_chunk(batch: Batch, chunk: int) -> Batch:
    """What sequences see where tokens only look at their own stretch of ``chunk``: beyond the first, half of it on
    average, since sequences stand anywhere in theirs; long prompts are as many whole stretches.
    """
    if batch.context + batch.new <= chunk:
        return batch
    if batch.new < chunk:
        return replace(batch, context=max(1, (chunk - batch.new) // 2))
    return replace(batch, sequences=batch.sequences * round(batch.new / chunk), new=chunk, context=0)


def latent_core(shape: Latent, ways: int, batch: Batch, dtype: str, cache: str) -> list[OpSpec]:
    """Latent attention: absorbed into the latent space for decode, expanded keys and values for prefill."""
    heads = split_heads(shape.heads, ways)
    width = shape.kv_rank + shape.rope_dim
    length = batch.context + batch.new
    rows = batch.tokens
    write = op(kernels.FUSED, (tensor(dtype, rows, width),), (tensor(cache, rows, width),), ops=1)
    if batch.decodes:
        absorb = _per_head(dtype, heads, rows, shape.nope_dim, shape.kv_rank)
        expand = _per_head(dtype, heads, rows, shape.kv_rank, shape.value_dim)
        q = tensor(dtype, batch.sequences, batch.new, heads, width)
        pages = tensor(cache, -(-length * batch.sequences // PAGE), PAGE, width)
        out = tensor(dtype, batch.sequences, batch.new, heads, shape.kv_rank)
        return [write, absorb, op(kernels.MLA_DECODE, (q, pages), (out,), kv_len=length), expand]
    qk, kv_rows = shape.nope_dim + shape.rope_dim, batch.sequences * length
    wide = heads * (shape.nope_dim + shape.value_dim)
    expand = op(
        "aten.mm",
        (tensor(dtype, kv_rows, shape.kv_rank), tensor(dtype, shape.kv_rank, wide)),
        (tensor(dtype, kv_rows, wide),),
    )
    q = tensor(dtype, batch.sequences, batch.new, heads, qk)
    k = tensor(dtype, batch.sequences, length, heads, qk)
    v = tensor(dtype, batch.sequences, length, heads, shape.value_dim)
    out = tensor(dtype, batch.sequences, batch.new, heads, shape.value_dim)
    # keys of all heads are put together from their own part and the rotary part that they share
    own, shared = (
        tensor(dtype, kv_rows, heads, shape.nope_dim),
        tensor(dtype, kv_rows, shape.rope_dim),
    )
    join = op(kernels.FUSED, (own, shared), (tensor(dtype, kv_rows, heads, qk),), ops=0)
    # and the turned part of the queries is written back into theirs (SGLang's and vLLM's ``q[..., nope:] = q_pe``)
    turned = tensor(dtype, rows, heads, shape.rope_dim)
    back = op(kernels.FUSED, (turned,), (turned,), ops=0)
    return [write, expand, back, join, op(kernels.FLASH_ATTENTION, (q, k, v), (out,), causal=True, window=-1)]


def _per_head(dtype: str, heads: int, rows: int, wide_in: int, wide_out: int) -> OpSpec:
    a, b = tensor(dtype, heads, rows, wide_in), tensor(dtype, heads, wide_in, wide_out)
    return op("aten.bmm", (a, b), (tensor(dtype, heads, rows, wide_out),))


def delta_core(shape: GatedDelta, ways: int, batch: Batch, dtype: str) -> list[OpSpec]:
    """Convolution and delta rule: from the state token by token, or in chunks."""
    keys, values = split_heads(shape.key_heads, ways), split_heads(shape.value_heads, ways)
    channels = 2 * keys * shape.key_dim + values * shape.value_dim
    weight = tensor(dtype, channels, shape.convolution)
    n, length = batch.sequences, batch.new
    q = tensor(dtype, n, length, keys, shape.key_dim)
    v = tensor(dtype, n, length, values, shape.value_dim)
    gate = tensor("float32", n, length, values)
    state = tensor("float32", n, values, shape.key_dim, shape.value_dim)
    if batch.decodes:
        x, past = tensor(dtype, n, channels), tensor(dtype, n, channels, shape.convolution)
        update = op(kernels.CAUSAL_CONV1D_UPDATE, (x, past, weight), (x, past))
        step = op(kernels.GATED_DELTA_RECURRENT, (q, q, v, gate, gate, state), (v, state))
        return [*(update,) * length, step]
    x = tensor(dtype, n, channels, length)
    convolve = op(kernels.CAUSAL_CONV1D, (x, weight), (x,))
    return [convolve, op(kernels.GATED_DELTA_CHUNK, (q, q, v, gate, gate), (v, state), chunk=64)]
