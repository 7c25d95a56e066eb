"""Gated DeltaNet in training and prefill: chunked delta rule behind a short convolution."""

from __future__ import annotations

from windtunnel.program import kernels
from windtunnel.recipes.architecture import GatedDelta
from windtunnel.recipes.layers.attention import split_heads
from windtunnel.recipes.layers.norm import norm_piece
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.linear import Products
from windtunnel.recipes.piece import Keep, Piece, op, tensor

CHUNK = 64


def gated_delta(shape: GatedDelta, hidden: int, layout: Layout) -> tuple[Piece, ...]:
    """The mixer of a layer: products, short convolution, delta rule, gated norm, output."""
    products = Products(layout)
    dtype, tokens = products.dtype, layout.tokens
    keys, values = split_heads(shape.key_heads, layout.tensor), split_heads(shape.value_heads, layout.tensor)
    key_width, value_width = keys * shape.key_dim, values * shape.value_dim
    channels = 2 * key_width + value_width
    return (
        products.linear("qkvz", tokens, hidden, channels + value_width, split="column"),
        products.linear("decay, beta", tokens, hidden, 2 * values, cast_input=False),
        _convolution(dtype, layout, channels, shape.convolution),
        _core(dtype, layout, keys, values, shape),
        norm_piece("gated norm", dtype, tokens * values, shape.value_dim),
        products.linear("delta out", tokens, value_width, hidden, split="row"),
    )


def _convolution(dtype: str, layout: Layout, channels: int, width: int) -> Piece:
    length = layout.sequence // layout.context
    x, w = tensor(dtype, layout.micro_batch, channels, length), tensor(dtype, channels, width)
    return Piece(
        "convolution",
        (op(kernels.CAUSAL_CONV1D, (x, w), (x,)),),
        (op(kernels.CAUSAL_CONV1D_BACKWARD, (x, x, w), (x, w)),),
        keep=Keep.CHEAP,
        parameters=channels * width,
    )


def _core(dtype: str, layout: Layout, keys: int, values: int, shape: GatedDelta) -> Piece:
    batch, length = layout.micro_batch, layout.sequence // layout.context
    q = tensor(dtype, batch, length, keys, shape.key_dim)
    v = tensor(dtype, batch, length, values, shape.value_dim)
    gate = tensor("float32", batch, length, values)
    forward = op(kernels.GATED_DELTA_CHUNK, (q, q, v, gate, gate), (v,), chunk=CHUNK)
    backward = op(
        kernels.GATED_DELTA_CHUNK_BACKWARD, (v, q, q, v, gate, gate), (q, q, v, gate, gate), chunk=CHUNK
    )
    return Piece("delta rule", (forward,), (backward,), keep=Keep.CORE)
