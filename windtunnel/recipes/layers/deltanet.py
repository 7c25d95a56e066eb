"""Gated DeltaNet in training and prefill: chunked delta rule behind a short convolution."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.program import kernels
from windtunnel.recipes.architecture import GatedDelta
from windtunnel.recipes.layers.attention import split_heads
from windtunnel.recipes.layers.norm import norm_piece
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.linear import Products
from windtunnel.recipes.piece import Keep, Piece, op, tensor
from windtunnel.recipes.tensor_parallel import enter, leave

CHUNK = 64


def gated_delta(shape: GatedDelta, hidden: int, layout: Layout) -> tuple[Piece, ...]:
    """The mixer of a layer: products, short convolution, delta rule, gated norm, output."""
    products = Products(layout)
    dtype, tokens = products.dtype, layout.tokens
    keys, values = split_heads(shape.key_heads, layout.tensor), split_heads(shape.value_heads, layout.tensor)
    key_width, value_width = keys * shape.key_dim, values * shape.value_dim
    channels = 2 * key_width + value_width
    wide, narrow = ((), ()) if layout.fused else ((channels, value_width), (values, values))
    gates = products.linear("decay, beta", tokens, hidden, 2 * values, cast_input=False, parts=narrow)
    if not layout.fused:  # both sets of products have the same input
        x = tensor(dtype, tokens, hidden)
        gates = replace(gates, backward=(*gates.backward, op("aten.add.Tensor", (x, x), (x,))))
    return (
        *enter(layout, "attention", hidden),
        products.linear("qkvz", tokens, hidden, channels + value_width, split="column", parts=wide),
        gates,
        _convolution(dtype, layout, channels, shape.convolution),
        _core(dtype, layout, keys, values, shape),
        _gated_norm(layout, dtype, tokens * values, shape.value_dim),
        products.linear("delta out", tokens, value_width, hidden, split="row"),
        *leave(layout, "attention", hidden),
    )


def _convolution(dtype: str, layout: Layout, channels: int, width: int) -> Piece:
    length = layout.sequence // layout.context
    x, w = tensor(dtype, layout.micro_batch, channels, length), tensor(dtype, channels, width)
    backward = [op(kernels.CAUSAL_CONV1D_BACKWARD, (x, x, w), (x, w))]
    if not layout.fused:  # gradients of queries, keys and values into one, turned to channels first and back
        clone = op("aten.clone", (x,), (x,))
        backward = [op("aten.cat", (x,), (x,)), clone, *backward, clone]
    return Piece(
        "convolution",
        (op(kernels.CAUSAL_CONV1D, (x, w), (x,)),),
        tuple(backward),
        parameters=channels * width,
    )


def _gated_norm(layout: Layout, dtype: str, rows: int, columns: int) -> Piece:
    """RMSNorm times the gate's SiLU: one kernel, or the norm and then the gate in FP32."""
    norm = norm_piece("gated norm", dtype, rows, columns, fused=layout.fused_norm)
    if layout.fused:
        return norm
    x, wide = tensor(dtype, rows, columns), tensor("float32", rows, columns)
    up, down = op("aten._to_copy", (x,), (wide,)), op("aten._to_copy", (wide,), (x,))
    product = op("aten.mul.Tensor", (x, wide), (wide,))
    forward = (up, op("aten.silu", (wide,), (wide,)), product, down)
    back = op("aten.silu_backward", (wide, wide), (wide,))
    backward = (up, product, op("aten.mul.Tensor", (wide, wide), (wide,)), back, down, down)
    return replace(norm, forward=(*norm.forward, *forward), backward=(*backward, *norm.backward))


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
