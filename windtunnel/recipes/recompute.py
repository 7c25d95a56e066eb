"""What backward computes again: the attention core, single operations, or whole layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from windtunnel.program import kernels
from windtunnel.program.marks import COLLECTIVE_PREFIX, ITEM, WAIT_COLLECTIVE
from windtunnel.program.op import OpSpec
from windtunnel.recipes.layout import EagerCode, Layout, Recompute
from windtunnel.recipes.piece import Keep, Piece
from windtunnel.recipes.stages import Pieces
from windtunnel.recipes.tensor_parallel import leaves

_COUNTED = frozenset({"aten.mm.default", "aten._scaled_mm.default", kernels.BLOCK_SCALED_GEMM})
"""Products of which every second is computed again; those of experts (grouped) all are."""
_KEPT = frozenset({ITEM, "aten.topk.default"})
"""Whatever else is kept: counts on the host and the choice of experts, which must not change."""
_ATTENTION = (kernels.FLASH_ATTENTION, kernels.FLEX_ATTENTION)
_EXCHANGED_AGAIN = ("_allgather_base_", "allreduce_")
"""Collectives that run again; what was exchanged or scattered is kept."""


def recomputed(pieces: Pieces, layout: Layout) -> Iterator[Piece]:
    """What backward computes again; the ends of the model (embedding, head) never are."""
    if is_end(pieces) or layout.recompute is Recompute.NONE:
        return
    if layout.recompute is Recompute.FULL:
        yield from pieces[: len(pieces) - _unneeded(pieces, layout)]
    elif layout.recompute is Recompute.SELECTIVE:
        yield from (piece for piece in pieces if piece.keep is Keep.CORE)
    else:
        again = _single_operations(pieces, layout.recompute is Recompute.SELECTIVE_OPS)
        unread = _before_kept_sums(layout)
        yield from (piece for piece in again if piece.name not in unread)


def _unneeded(pieces: Pieces, layout: Layout) -> int:
    """Pieces at the end of a layer that full recomputation leaves out, as no gradient needs a layer's result.

    Compiled backward graphs hold what gradients need, and PyTorch stops as soon as it has all that backward asks for;
    TorchTitan and Megatron-LM do not let it stop.
    """
    if not layout.fused and layout.eager is EagerCode.TORCHTITAN:
        return 0
    count = 1  # the sum with the residual stream
    if layout.compiled or (not layout.fused and layout.eager is EagerCode.TRANSFORMERS):
        while count < len(pieces) and pieces[-1 - count].name in ("down", *leaves("ffn")):
            count += 1
    return count


def _before_kept_sums(layout: Layout) -> tuple[str, ...]:
    """What only leads to sums over tensor ranks that per-operation recomputation keeps: compiled code drops it."""
    if not layout.compiled or layout.tensor == 1:
        return ()
    return ("attention out", *leaves("attention"), *leaves("ffn"))


def is_end(pieces: Pieces) -> bool:
    """Whether these are the embedding, or the output product with the loss."""
    return any(piece.name in ("embedding", "loss") for piece in pieces)


def _single_operations(pieces: Pieces, keeps_attention: bool) -> Iterator[Piece]:
    """TorchTitan's ``SelectiveAC``: the first product of a layer is kept, the second computed again, and so on."""
    counted = 0
    for piece in pieces:
        again: list[OpSpec] = []
        kept_works: set[object] = set()
        for spec in piece.forward:
            if spec.name in _COUNTED and piece.keep is not Keep.UNCOUNTED:
                counted += 1
                kept = counted % 2 == 1
            elif spec.name.startswith(COLLECTIVE_PREFIX):
                kept = spec.name.removeprefix(COLLECTIVE_PREFIX) not in _EXCHANGED_AGAIN
                kept_works |= {spec.attribute("work", -1)} if kept else set()
            elif spec.name == WAIT_COLLECTIVE:
                kept = spec.attribute("work", -1) in kept_works
            else:
                kept = spec.name in _KEPT or (keeps_attention and spec.name in _ATTENTION)
            if not kept:
                again.append(spec)
        if again:
            yield replace(piece, forward=tuple(again))
