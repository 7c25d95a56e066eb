"""Multi-head latent attention in training and prefill: keys and values are expanded from latent vectors."""

from __future__ import annotations

from windtunnel.recipes.architecture import Latent
from windtunnel.recipes.groups import TENSOR
from windtunnel.recipes.layers.attention import core, laid_out, rotary, split_heads
from windtunnel.recipes.layers.norm import norm_piece
from windtunnel.recipes.layout import EagerCode, Layout
from windtunnel.recipes.linear import Products
from windtunnel.recipes.piece import Piece, collective, op, tensor
from windtunnel.recipes.tensor_parallel import at_boundaries, enter, leave, replicated, with_summed_weights


def latent(shape: Latent, hidden: int, layout: Layout) -> tuple[Piece, ...]:
    """The mixer of a layer. Every tensor-parallel rank does the down products whole, the up ones in part.

    Of its own tokens, as Megatron-LM does them, or of all (DTensor).
    """
    products = Products(layout)
    heads = split_heads(shape.heads, layout.tensor)
    whole = at_boundaries(layout)
    tokens, rows = layout.tokens, layout.tokens if whole else layout.sequence_tokens
    qk_dim = shape.nope_dim + shape.rope_dim
    pieces = [*enter(layout, "attention", hidden)]
    if shape.query_rank:
        pieces += [
            *_down(products, "q down", rows, hidden, shape.query_rank),
            norm_piece("q norm", products.dtype, rows, shape.query_rank, shape.norm, layout.fused_norm),
            *replicated(layout, "q", shape.query_rank),
            products.linear("q up", tokens, shape.query_rank, heads * qk_dim, split="column"),
        ]
    else:
        pieces.append(products.linear("q", tokens, hidden, heads * qk_dim, split="column"))
    wide = shape.kv_rank + shape.rope_dim
    down = _down(products, "kv down", rows, hidden, shape.kv_rank, shape.rope_dim)
    pieces += [
        *((with_summed_weights(down[0], layout, wide, hidden),) if whole else down),
        norm_piece("kv norm", products.dtype, rows, shape.kv_rank, shape.norm, layout.fused_norm),
        *replicated(layout, "kv", shape.kv_rank),
        products.linear(
            "kv up", tokens, shape.kv_rank, heads * (shape.nope_dim + shape.value_dim), split="column"
        ),
        rotary("rotary", products.dtype, tokens, (heads, 1), shape.rope_dim, layout, latent=True),
        *(() if layout.fused else (_join(layout, shape, heads, hidden),)),
        core(layout, heads, heads, qk_dim, shape.value_dim),
        *laid_out(layout, heads * shape.value_dim),
        products.linear("attention out", tokens, heads * shape.value_dim, hidden, split="row"),
        *leave(layout, "attention", hidden),
    ]
    return tuple(pieces)


def _down(
    products: Products, name: str, rows: int, hidden: int, rank: int, beside: int = 0
) -> tuple[Piece, ...]:
    """The product to latent vectors, with ``beside`` numbers that go another way.

    Every tensor-parallel rank does it whole for its tokens; Megatron-core's own is in columns, gathered behind it and
    shared out again.
    """
    layout, wide = products.layout, rank + beside
    ways = layout.tensor
    if ways == 1 or layout.fused or layout.eager is not EagerCode.MEGATRON:
        return (products.linear(name, rows, hidden, wide, cast_input=not beside),)
    product = products.linear(name, layout.tokens, hidden, max(1, wide // ways), split="column")
    part, whole = (tensor(products.dtype, layout.tokens, width) for width in (max(1, wide // ways), wide))
    own, all_rows = (tensor(products.dtype, rows, rank) for rows in (layout.sequence_tokens, layout.tokens))
    gather = collective("_allgather_base_", TENSOR, part, whole)
    forward = (gather, op("aten.cat", (whole,), (whole,)))
    back = (collective("_allgather_base_", TENSOR, own, all_rows),) if layout.sequence_parallel else ()
    return product, Piece(f"{name} gather", forward, back)


def _join(layout: Layout, shape: Latent, heads: int, hidden: int) -> Piece:
    """Queries and keys put together from their plain and rotary parts, and what that takes apart backward."""
    dtype, tokens = layout.precision.activation, layout.tokens
    turned = tensor(dtype, tokens, heads, shape.rope_dim)
    plain, shared = tensor(dtype, tokens, heads, shape.nope_dim), tensor(dtype, tokens, 1, shape.rope_dim)
    value = tensor(dtype, tokens, heads, shape.value_dim)
    whole = tensor(dtype, tokens, heads, shape.nope_dim + shape.rope_dim)
    expanded = tensor(dtype, tokens, heads, shape.nope_dim + shape.value_dim)
    latent, rope = tensor(dtype, tokens, shape.kv_rank), tensor(dtype, tokens, shape.rope_dim)
    down = tensor(dtype, tokens, shape.kv_rank + shape.rope_dim)
    forward = [op("aten.cat", (plain, turned), (whole,)), op("aten.cat", (plain, shared), (whole,))]
    backward = [
        op("aten.sum.dim_IntList", (turned,), (shared,)),
        op("aten.cat", (plain, value), (expanded,)),
        op("aten.cat", (latent, rope), (down,)),
        op("aten.cat", (plain, turned), (whole,)),
    ]
    if layout.eager.turns_halves:  # heads lie outside the length there
        backward += [op("aten.clone", (x,), (x,)) for x in (expanded, whole)]
    if layout.eager is EagerCode.MEGATRON:  # values are made contiguous
        forward.append(op("aten.clone", (value,), (value,)))
    if at_boundaries(layout):  # the latent's gradient becomes one of several that are summed
        backward.append(op("aten.div.Tensor", (latent,), (latent,)))
    x = tensor(dtype, tokens if at_boundaries(layout) else layout.sequence_tokens, hidden)
    backward.append(op("aten.add.Tensor", (x, x), (x,)))  # two products have the same input
    return Piece("latent join", tuple(forward), tuple(backward))
