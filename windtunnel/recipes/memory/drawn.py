"""What weights are drawn with: buffers of initialisation, which stay in the allocator's cache.

TorchTitan (``models/common/config_utils.py``) draws every matrix in place from a truncated normal distribution, with
masks of what fell outside. A joined product of queries, keys and values is drawn as three whole matrices on every
rank, so that it does not depend on the layout; each rank keeps its shard. Redraws of what fell outside are left out:
the bounds are a hundred standard deviations, but for the output matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.recipes.layout import EagerCode, Layout, Sharding
from windtunnel.recipes.memory.parts import WIDE
from windtunnel.recipes.memory.tape import Tape, free
from windtunnel.specs.model import Layer
from windtunnel.specs.model_mixers import Attention


def draws(layout: Layout) -> bool:
    """Whether initialisation is written down: TorchTitan's of today."""
    titan = not layout.fused and layout.eager is EagerCode.TORCHTITAN
    return titan and layout.sharding is Sharding.FSDP


def joined(layer: Layer, hidden: int) -> tuple[int, ...]:
    """Elements of queries, keys and values that are drawn apart and make one matrix, the layer's first."""
    mixer = layer.mixer
    if not isinstance(mixer, Attention):
        return ()
    queries = mixer.heads * mixer.head_dim * (2 if mixer.gated else 1)
    keys = mixer.kv_heads * mixer.head_dim
    return queries * hidden, keys * hidden, keys * hidden


def draw(tape: Tape, shards: Sequence[int], pieces: Sequence[int], vector: int, tensor: int = 1) -> None:
    """Parameters of one layer. ``shards``: elements on this rank; up to ``vector`` they are filled in place.

    ``tensor``: tensor-parallel ranks, of which each cuts its own part out first.
    """
    pieces = tuple(pieces)
    for elements in shards:
        if elements <= vector:
            continue
        if not pieces:
            _masks(tape, elements)
            continue
        drawn = [tape.allocate(piece * WIDE, "aten.new_empty") for piece in pieces]
        for piece in pieces:
            _masks(tape, piece)
        whole = tape.allocate(sum(pieces) * WIDE, "aten.cat")
        cuts = [sum(pieces) // tensor] if tensor > 1 else []
        held = [tape.allocate(cut * WIDE, "aten.clone") for cut in (*cuts, elements)]
        free(held)
        free(drawn)
        del whole
        pieces = ()


def _masks(tape: Tape, elements: int) -> None:
    below = tape.allocate(elements, "aten.lt.Scalar")
    above = tape.allocate(elements, "aten.gt.Scalar")
    either = tape.allocate(elements, "aten.bitwise_or.Tensor")
    del below, above
    del either
