"""A vision tower as transformers runs it (Qwen3-VL): positions between four learned ones, rotary embedding in FP32.

Biases are added by the products, images attend one by one and are joined again, pictures are cast by FSDP, by the
model and by the tower, and their tokens take the places that the text has kept for them.
"""

from __future__ import annotations

from dataclasses import replace

from windtunnel.recipes.architecture import DenseFfn, GroupedQuery, LayerShape, VisionTower
from windtunnel.recipes.layers.attention import core, rotary, split_heads
from windtunnel.recipes.layers.ffn import dense
from windtunnel.recipes.layers.norm import norm_piece, residual_piece
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.linear import Products
from windtunnel.recipes.piece import Piece, op, tensor

CORNERS = 4
"""Learned positions between which a patch's own is interpolated."""


def block(tower: VisionTower, shape: LayerShape, layout: Layout) -> tuple[Piece, ...]:
    """Norm, attention, residual, norm, feed-forward, residual."""
    assert isinstance(shape.mixer, GroupedQuery)
    assert isinstance(shape.ffn, DenseFfn)
    products, hidden, rows = Products(layout), tower.hidden, layout.tokens
    heads, dim = split_heads(shape.mixer.heads, layout.tensor), shape.mixer.head_dim
    width, dtype = heads * dim, products.dtype
    norm = norm_piece("norm", dtype, layout.sequence_tokens, hidden, shape.norm, layout.fused_norm)
    residual = residual_piece(dtype, layout.sequence_tokens, hidden)
    return (
        norm,
        products.linear("qkv", rows, hidden, 3 * width, split="column", bias=True),
        _turned(layout, dtype, rows, heads, dim),
        core(layout, heads, heads, dim, dim, causal=False),
        _images_joined(dtype, rows, width),
        products.linear("attention out", rows, width, hidden, split="row", bias=True),
        residual,
        norm,
        *dense(shape.ffn, hidden, layout),
        residual,
    )


def _turned(layout: Layout, dtype: str, rows: int, heads: int, dim: int) -> Piece:
    """Queries and keys turned in FP32; gradients of queries, keys and values into that of their one product."""
    turn = rotary("rotary", "float32", rows, (heads, heads), dim, layout)
    x, wide = tensor(dtype, rows, heads, dim), tensor("float32", rows, heads, dim)
    whole = tensor(dtype, 3, rows, heads, dim)
    up, down = op("aten._to_copy", (x,), (wide,)), op("aten._to_copy", (wide,), (x,))
    backward = tuple(spec for spec in turn.backward if spec.name != "aten.clone.default")
    joined = (op("aten.stack", (x, x, x), (whole,)), op("aten.clone", (whole,), (whole,)))
    return replace(
        turn,
        forward=(up, up, *turn.forward, down, down),
        backward=(up, up, *backward, down, down, *joined),
    )


def _images_joined(dtype: str, rows: int, width: int) -> Piece:
    """Results of all images side by side; backward queries, keys and values are."""
    x = tensor(dtype, rows, width)
    join = op("aten.cat", (x,), (x,))
    return Piece("attention layout", (join,), (join, join, join))


def patches(tower: VisionTower, layout: Layout, patch: Piece) -> tuple[Piece, ...]:
    """The patch embedding with what casts the pictures, and positions weighed in FP32 and summed."""
    dtype, rows = layout.precision.activation, layout.tokens
    picture, wide = (tensor(kind, rows, tower.patch_elements) for kind in (dtype, "float32"))
    down = op("aten._to_copy", (wide,), (picture,))
    cast = (down, op("aten._to_copy", (picture,), (wide,)), down)
    patch = replace(patch, forward=(*cast, *patch.forward))
    return (patch, _positions(tower, dtype, rows)) if tower.positions else (patch,)


def _positions(tower: VisionTower, dtype: str, rows: int) -> Piece:
    table, ids = tensor(dtype, tower.positions, tower.hidden), tensor("int64", rows * CORNERS)
    found, scaled = (tensor(kind, rows * CORNERS, tower.hidden) for kind in (dtype, "float32"))
    weights = tensor("float32", rows * CORNERS, 1)
    total, x = tensor("float32", rows, tower.hidden), tensor(dtype, rows, tower.hidden)
    forward = (
        op("aten.embedding", (table, ids), (found,)),
        op("aten.mul.Tensor", (found, weights), (scaled,)),
        op("aten.sum.dim_IntList", (scaled,), (total,)),
        op("aten._to_copy", (total,), (x,)),
        op("aten.add.Tensor", (x, x), (x,)),
    )
    spread = tensor("float32", rows, 1, tower.hidden)
    backward = (
        op("aten._to_copy", (x,), (total,)),
        op("aten.mul.Tensor", (spread, tensor("float32", rows, CORNERS, 1)), (scaled,)),
        op("aten._to_copy", (scaled,), (found,)),
        op("aten.embedding_dense_backward", (found, ids), (table,)),
    )
    return Piece("vision positions", forward, backward)


def joined(tower: VisionTower, layout: Layout, text_tokens: int) -> Piece:
    """Merged tokens put among the text's, and those of further mergers added there in deeper layers (DeepStack)."""
    dtype = layout.precision.activation
    merged = tensor(dtype, max(1, layout.tokens // tower.merge), tower.output)
    text, mask = tensor(dtype, text_tokens, tower.output), tensor("bool", text_tokens, 1)
    index = tensor("int64", merged.shape[0])
    take, total = (
        op("aten.index.Tensor", (text, index), (merged,)),
        op("aten.add.Tensor", (text, text), (text,)),
    )
    images = op("aten.cat", (merged,), (merged,))
    deeper = (
        images,
        op("aten.clone", (text,), (text,)),
        take,
        op("aten.add.Tensor", (merged, merged), (merged,)),
        op("aten.index_put_", (text, index, merged), (text,)),
    )
    put = op("aten.index_put", (text, index, merged), (text,))
    back = (put, take, op("aten.new_zeros", (merged,), (text,)), put, total, images)
    # the first merger's gradient comes out of the text's; the inner blocks' patches have two gradients each
    patch = tensor(dtype, layout.tokens, tower.hidden)
    both = op("aten.add.Tensor", (patch, patch), (patch,))
    forward = (images, op("aten.masked_scatter", (text, mask, merged), (text,)))
    backward = (
        op("aten.masked_fill.Scalar", (text, mask), (text,)),
        op("aten.masked_scatter_backward", (text, mask), (merged,)),
        images,
    )
    deep = tower.deep_mergers
    return Piece("vision join", (*forward, *deeper * deep), (*back * deep, *backward, *(both,) * deep))
