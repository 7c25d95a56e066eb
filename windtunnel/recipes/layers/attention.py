"""Softmax attention: products, rotary embedding, the core, and its split over context-parallel ranks.

With context parallelism keys and values travel round a ring (Megatron-LM, zigzag order): a rank computes the
causal block of its own tokens and, for each other rank, a rectangle of half the area, while the next keys and
values arrive. Or they are gathered whole (``gathered_keys``).
"""

from __future__ import annotations

from windtunnel.program import kernels
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.recipes.architecture import GroupedQuery
from windtunnel.recipes.groups import CONTEXT
from windtunnel.recipes.layers import megatron_local
from windtunnel.recipes.layers.gathered_keys import gathered_core
from windtunnel.recipes.layers.norm import norm_piece
from windtunnel.recipes.layout import AttentionKernel, EagerCode, Layout
from windtunnel.recipes.linear import Products
from windtunnel.recipes.piece import Keep, Piece, collective, op, tensor, wait
from windtunnel.recipes.tensor_parallel import enter, leave, with_summed_weights

_RING_WORK = 8
SOFTMAX_HEADS = 4
"""Megatron-LM's fused softmax takes four warps of 32 threads a block, a head each from 129 keys on."""


def split_heads(heads: int, ways: int) -> int:
    """Heads on one of ``ways`` ranks; where there are fewer heads than ranks they are replicated."""
    return max(1, heads // ways)


def grouped_query(shape: GroupedQuery, hidden: int, layout: Layout) -> tuple[Piece, ...]:
    """The mixer of a layer: projections, rotary, core, output product."""
    products = Products(layout)
    heads, kv_heads = split_heads(shape.heads, layout.tensor), split_heads(shape.kv_heads, layout.tensor)
    q, kv = heads * shape.head_dim, 2 * kv_heads * shape.head_dim
    tokens = layout.tokens
    wide = q * (2 if shape.gated else 1) + kv
    apart = not layout.fused and layout.eager.turns_halves
    compiled = layout.compiled and layout.eager is not EagerCode.TORCHTITAN
    parts = (wide - kv, kv // 2, kv // 2) if apart or compiled else ()
    pieces = [
        *enter(layout, "attention", hidden),
        products.linear(
            "qkv", tokens, hidden, wide, split="column", bias=shape.bias, adapted=True, parts=parts
        ),
    ]
    if not layout.fused and not apart:
        only_queries = layout.eager is EagerCode.MEGATRON
        pieces.append(_split_qkv(products.dtype, tokens, wide - kv, kv // 2, only_queries))
    if shape.query_norm is not None:
        for which, count in (("q norm", heads), ("k norm", kv_heads)):  # of this rank's heads only
            rows, kind = tokens * count, shape.query_norm
            norm = norm_piece(which, products.dtype, rows, shape.head_dim, kind, layout.fused_norm)
            pieces.append(with_summed_weights(norm, layout, shape.head_dim))
    if shape.rotary:
        both, turned = (heads, kv_heads), shape.rotary_dims
        normed = shape.query_norm is not None
        pieces.append(
            rotary("rotary", products.dtype, tokens, both, shape.head_dim, layout, turned, normed=normed)
        )
    pieces.append(core(layout, heads, kv_heads, shape.head_dim, shape.head_dim, shape.window, shape.causal))
    pieces += laid_out(layout, q)
    if shape.gated:
        pieces.append(_gate(products.dtype, tokens, q, layout.fused))
    pieces.append(
        products.linear("attention out", tokens, q, hidden, split="row", bias=shape.output_bias, adapted=True)
    )
    return (*pieces, *leave(layout, "attention", hidden))


def _gate(dtype: str, tokens: int, width: int, fused: bool) -> Piece:
    """The output times the sigmoid of a gate that comes with the queries."""
    x = tensor(dtype, tokens, width)
    if fused:
        forward = (op(kernels.FUSED, (x, x), (x,), ops=6),)
        backward = (op(kernels.FUSED, (x, x, x), (x, x), ops=10),)
        return Piece("gate", forward, backward)
    product = op("aten.mul.Tensor", (x, x), (x,))
    # queries are made contiguous, their gradient joins the gate's
    eager = (op("aten.clone", (x,), (x,)), op("aten.sigmoid", (x,), (x,)), product)
    back = op("aten.sigmoid_backward", (x, x), (x,))
    join = op("aten.cat", (x, x), (tensor(dtype, tokens, 2 * width),))
    return Piece("gate", eager, (product, product, back, join))


def _split_qkv(dtype: str, tokens: int, queries: int, keys: int, only_queries: bool) -> Piece:
    """Queries, keys and values out of one product, each (or the queries) made contiguous; their gradients into one."""
    whole = tensor(dtype, tokens, queries + 2 * keys)
    apart = tensor(dtype, tokens, queries), *(tensor(dtype, tokens, keys),) * 2
    forward = tuple(op("aten.clone", (part,), (part,)) for part in (apart[:1] if only_queries else apart))
    return Piece("qkv split", forward, (op("aten.cat", apart, (whole,)),))


def rotary(
    name: str,
    dtype: str,
    tokens: int,
    heads: tuple[int, ...],
    dim: int,
    layout: Layout,
    turned: int = 0,
    latent: bool = False,
    normed: bool = False,
) -> Piece:
    """Rotary embedding of queries and keys: one kernel, or piece by piece as model code writes it.

    ``turned``: only so many numbers of a head; 0: all. ``latent``: of latent attention. ``normed``: queries and keys
    have norms (Qwen), whose halves TorchTitan turns in FP32 (its ``CosSinRoPE``).
    """
    if layout.fused:
        x, table = tensor(dtype, tokens, sum(heads), dim), tensor("float32", tokens, dim)
        there = op(kernels.ROTARY, (x, table, table), (x,))
        return Piece(name, (there,), (op(kernels.ROTARY_BACKWARD, (x, table, table), (x,)),))
    if layout.eager is EagerCode.MEGATRON:
        return megatron_local.rotary(name, dtype, tokens, heads, turned or dim, latent)
    turn = _by_halves if layout.eager.turns_halves else _by_complex_numbers
    if normed and layout.eager is EagerCode.TORCHTITAN:
        turn = _by_halves_in_fp32
    both = [turn(dtype, tokens, count, turned or dim) for count in heads]
    if 0 < turned < dim:
        both = [
            _in_part(dtype, tokens, count, dim, turned, *ways)
            for count, ways in zip(heads, both, strict=True)
        ]
    forward, backward = (tuple(spec for ways in both for spec in ways[way]) for way in (0, 1))
    return Piece(name, forward, backward)


def _in_part(
    dtype: str, tokens: int, heads: int, dim: int, turned: int, forward: list[OpSpec], backward: list[OpSpec]
) -> tuple[list[OpSpec], list[OpSpec]]:
    """The part that is turned is joined with the rest; backward both come out of one tensor."""
    part, rest = tensor(dtype, tokens, heads, turned), tensor(dtype, tokens, heads, dim - turned)
    x = tensor(dtype, tokens, heads, dim)
    copy = op("aten.clone", (x,), (x,))
    apart = [op("aten.slice_backward", (y,), (x,)) for y in (rest, part)]
    total = op("aten.add.Tensor", (x, x), (x,))
    own = [spec for spec in backward if spec.name != copy.name]  # the whole is made contiguous, not the part
    return [*forward, op("aten.cat", (part, rest), (x,))], [*own, *apart, total, copy]


def _by_complex_numbers(dtype: str, tokens: int, heads: int, dim: int) -> tuple[list[OpSpec], list[OpSpec]]:
    x, wide = tensor(dtype, tokens, heads, dim), tensor("float32", tokens, heads, dim)
    pairs, turn = tensor("complex64", tokens, heads, dim // 2), tensor("complex64", tokens, 1, dim // 2)
    up, down = op("aten._to_copy", (x,), (wide,)), op("aten._to_copy", (wide,), (x,))
    product = op("aten.mul.Tensor", (pairs, turn), (pairs,))
    return [up, product, down], [up, op("aten.clone", (wide,), (wide,)), product, down]


def _by_halves(dtype: str, tokens: int, heads: int, dim: int) -> tuple[list[OpSpec], list[OpSpec]]:
    """x cos + rotate(x) sin, where rotate joins the negative second half and the first."""
    x, half = tensor(dtype, tokens, heads, dim), tensor(dtype, tokens, heads, dim // 2)
    table = tensor(dtype, tokens, 1, dim)
    scaled = op("aten.mul.Tensor", (x, table), (x,))
    total = op("aten.add.Tensor", (x, x), (x,))
    negative = op("aten.neg", (half,), (half,))
    back = op("aten.slice_backward", (half,), (x,))
    forward = [scaled, negative, op("aten.cat", (half, half), (x,)), scaled, total]
    backward = [scaled, back, negative, back, total, scaled, total, op("aten.clone", (x,), (x,))]
    return forward, backward


def _by_halves_in_fp32(dtype: str, tokens: int, heads: int, dim: int) -> tuple[list[OpSpec], list[OpSpec]]:
    x, wide = tensor(dtype, tokens, heads, dim), tensor("float32", tokens, heads, dim)
    up, down = op("aten._to_copy", (x,), (wide,)), op("aten._to_copy", (wide,), (x,))
    forward, backward = _by_halves("float32", tokens, heads, dim)
    return [up, *forward, down], [up, *backward[:-1], down]  # nothing is made contiguous


def laid_out(layout: Layout, width: int) -> tuple[Piece, ...]:
    """Flex attention's result has heads outside the length: TorchTitan's output product takes a copy of it."""
    if layout.fused or layout.eager is not EagerCode.TORCHTITAN:
        return ()
    x = tensor(layout.precision.activation, layout.tokens, width)
    return (Piece("attention layout", (op("aten.clone", (x,), (x,)),)),)


def core(
    layout: Layout, heads: int, kv_heads: int, qk_dim: int, v_dim: int, window: int = 0, causal: bool = True
) -> Piece:
    """Flash attention over the rank's tokens, round the context ring where there is one."""
    dtype = layout.precision.activation
    batch, length = layout.micro_batch, layout.sequence // layout.context
    if 0 < layout.segment < length:  # packed sequences attend to themselves only
        batch, length = batch * (length // layout.segment), layout.segment
    if layout.attention is AttentionKernel.UNFUSED:
        return unfused_core(dtype, batch, length, heads, qk_dim, v_dim)
    if layout.gathers_keys:
        return Piece(
            "core", *gathered_core(layout, (heads, kv_heads), qk_dim, v_dim, window, causal), keep=Keep.CORE
        )
    calls = [(length, causal)]
    # zigzag order: a rectangle of half the keys for every other rank
    calls += [(max(1, length // 2) if causal else length, False)] * (layout.context - 1)
    forward: list[OpSpec] = []
    backward: list[OpSpec] = []
    keys = tensor(dtype, batch, length, kv_heads, qk_dim + v_dim)
    for step, (kv_length, is_causal) in enumerate(calls):
        q = tensor(dtype, batch, length, heads, qk_dim)
        k = tensor(dtype, batch, kv_length, kv_heads, qk_dim)
        v = tensor(dtype, batch, kv_length, kv_heads, v_dim)
        out, lse = tensor(dtype, batch, length, heads, v_dim), tensor("float32", batch, heads, length)
        one, two = attention_ops(q, k, v, out, lse, is_causal, window)
        last = step == len(calls) - 1
        forward += _beside_ring([one], keys, last)
        backward += _beside_ring([two], keys, last, both=True)
    return Piece("core", tuple(forward), tuple(backward), keep=Keep.CORE)


def unfused_core(dtype: str, batch: int, length: int, heads: int, qk_dim: int, v_dim: int) -> Piece:
    """Scores, masked softmax, dropout, context: what ran before FlashAttention."""
    rows = batch * heads
    q, k = tensor(dtype, rows, length, qk_dim), tensor(dtype, rows, qk_dim, length)
    v, scores = tensor(dtype, rows, length, v_dim), tensor(dtype, rows, length, length)
    back = tensor(dtype, rows, length, length)
    mask = tensor("bool", rows, length, length)
    softmax, softmax_back = _masked_softmax(scores, mask)
    forward = (
        op("aten.bmm", (q, k), (scores,)),
        *softmax,
        op("aten.native_dropout", (scores,), (scores, mask)),
        op("aten.bmm", (scores, v), (v,)),
        op("aten.clone", (v,), (v,)),  # heads behind the length
    )
    backward = (
        op("aten.clone", (v,), (v,)),
        op("aten.bmm", (v, tensor(dtype, rows, v_dim, length)), (back,)),
        op("aten.bmm", (scores, v), (v,)),
        op("aten.native_dropout_backward", (back, mask), (back,)),
        *softmax_back,
        op("aten.bmm", (back, q), (q,)),
        op("aten.bmm", (back, q), (q,)),
        op("aten.cat", (q, q, v), (tensor(dtype, rows, length, 2 * qk_dim + v_dim),)),
    )
    return Piece("core", forward, backward, keep=Keep.CORE)


def _masked_softmax(scores: TensorSpec, mask: TensorSpec) -> tuple[tuple[OpSpec, ...], tuple[OpSpec, ...]]:
    """One kernel each way, where the heads fill its blocks; else scaled and masked in FP32, one by one.

    The kernel (`scaled_upper_triang_masked_softmax.h`) reads no score above the diagonal, and writes them all.
    """
    rows, length, keys = scores.shape
    if rows % SOFTMAX_HEADS == 0:
        below = tensor(scores.dtype, rows, length, max(1, keys // 2))
        down = op("aten._softmax_backward_data", (below, below), (scores,))
        return (op("aten._softmax", (below,), (scores,)),), (down,)
    wide = tensor("float32", *scores.shape)
    up, down = op("aten._to_copy", (scores,), (wide,)), op("aten._to_copy", (wide,), (scores,))
    scale = op("aten.mul.Tensor", (wide,), (wide,))
    fill = op("aten.masked_fill_.Scalar", (wide, mask), (wide,))
    forward = (up, scale, fill, op("aten._softmax", (wide,), (wide,)), down)
    back = op("aten._softmax_backward_data", (wide, wide), (wide,))
    return forward, (up, back, fill, scale, down)


def attention_ops(
    q: TensorSpec, k: TensorSpec, v: TensorSpec, out: TensorSpec, lse: TensorSpec, causal: bool, window: int
) -> tuple[OpSpec, OpSpec]:
    """Forward and backward of one flash-attention call."""
    kept = {"causal": causal, "window": window or -1}
    forward = op(kernels.FLASH_ATTENTION, (q, k, v), (out, lse), **kept)
    backward = op(kernels.FLASH_ATTENTION_BACKWARD, (out, q, k, v, out, lse), (q, k, v), **kept)
    return forward, backward


def _beside_ring(ops: list[OpSpec], keys: TensorSpec, last: bool, both: bool = False) -> list[OpSpec]:
    """The ring's next step runs beside ``ops``; backward passes keys and their gradients on."""
    if last:
        return ops
    moved = TensorSpec(keys.dtype, (2, *keys.shape)) if both else keys
    send = collective("send", CONTEXT, moved, moved, _RING_WORK)
    return [send, *ops, wait(_RING_WORK)]
