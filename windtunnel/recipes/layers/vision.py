"""A vision tower in front of the decoder: patch embedding, bidirectional blocks, merger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from windtunnel.recipes.architecture import LayerShape, VisionTower
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.linear import Products
from windtunnel.recipes.piece import Piece

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
    merged = tower.hidden * tower.merge
    tokens = seen.tokens
    patch = products.linear("patch", tokens, tower.patch_elements, tower.hidden, cast_input=False)
    merger = (
        products.linear("merge up", max(1, tokens // tower.merge), merged, merged, split="column"),
        products.linear("merge down", max(1, tokens // tower.merge), merged, tower.output, split="row"),
    )
    blocks = tuple(layer_pieces(shape, tower.hidden, seen) for shape in tower.layers)
    return ((patch,), *blocks, merger)
