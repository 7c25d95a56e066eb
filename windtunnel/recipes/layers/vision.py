"""A vision tower in front of the decoder: patch embedding, bidirectional blocks, merger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from windtunnel.recipes.architecture import LayerShape, VisionTower
from windtunnel.recipes.layers import tower_block
from windtunnel.recipes.layers.norm import activation_piece, norm_piece
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.linear import Products
from windtunnel.recipes.piece import Piece
from windtunnel.recipes.tensor_parallel import enter, leave
from windtunnel.specs.model import Norm

LayerPieces = Callable[[LayerShape, int, Layout], tuple[Piece, ...]]


def vision_pieces(
    tower: VisionTower, layout: Layout, layer_pieces: LayerPieces
) -> tuple[tuple[Piece, ...], ...]:
    """One entry per block. ``tower.patches`` patches of every sequence's images go through the tower.

    The tower is replicated over context-parallel ranks and split over tensor-parallel ones.
    """
    if not tower.patches:
        return ()
    seen = replace(layout, sequence=tower.patches, context=1, cards=layout.cards // layout.context)
    seen = replace(seen, expert=1, expert_tensor=1, fsdp_shard=0)
    products = Products(seen)
    patch = products.linear(
        "patch", seen.tokens, tower.patch_elements, tower.hidden, cast_input=False, bias=True
    )
    # nobody wants the gradient of the pictures
    patch = replace(patch, backward=(), parameters=patch.parameters + tower.positions * tower.hidden)
    norm = tower.layers[0].norm if tower.layers else Norm.LAYER
    mergers = _merger(tower, seen, tower.hidden, norm)
    for _ in range(tower.deep_mergers):
        mergers += _merger(tower, seen, tower.hidden * tower.merge, norm)
    if not layout.fused and layout.eager.turns_halves:
        blocks = tuple(tower_block.block(tower, shape, seen) for shape in tower.layers)
        joined = tower_block.joined(tower, seen, layout.tokens)
        return (tower_block.patches(tower, seen, patch), *blocks, (*mergers, joined))
    blocks = tuple(layer_pieces(shape, tower.hidden, seen) for shape in tower.layers)
    return ((patch,), *blocks, mergers)


def _merger(tower: VisionTower, layout: Layout, normalised: int, norm: Norm) -> tuple[Piece, ...]:
    """Norm, and two products with an activation between that make one token of ``tower.merge`` patches."""
    products = Products(layout)
    merged, elements = tower.hidden * tower.merge, layout.tokens * tower.hidden
    rows = max(1, layout.tokens // tower.merge)
    return (
        norm_piece("merge norm", products.dtype, elements // normalised, normalised, norm, layout.fused_norm),
        *enter(layout, "merge", tower.hidden),
        products.linear("merge up", rows, merged, merged, split="column", bias=True),
        activation_piece(products.dtype, rows, merged // layout.tensor, gated=False, fused=layout.fused),
        products.linear("merge down", rows, merged, tower.output, split="row", bias=True),
        *leave(layout, "merge", tower.output // tower.merge),
    )
