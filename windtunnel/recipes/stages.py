"""Which layers live on which pipeline stage, as pieces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.architecture import (
    Architecture,
    DenseFfn,
    GatedDelta,
    GroupedQuery,
    Latent,
    LayerShape,
    MoeFfn,
)
from windtunnel.recipes.layers.attention import grouped_query
from windtunnel.recipes.layers.deltanet import gated_delta
from windtunnel.recipes.layers.ends import embedding, head
from windtunnel.recipes.layers.ffn import dense, moe
from windtunnel.recipes.layers.latent import latent
from windtunnel.recipes.layers.norm import norm_piece, residual_piece
from windtunnel.recipes.layers.vision import vision_pieces
from windtunnel.recipes.layout import GraphScope, Layout
from windtunnel.recipes.piece import Piece
from windtunnel.recipes.tensor_parallel import with_summed_weights
from windtunnel.specs.model import Norm

Pieces = tuple[Piece, ...]

_ALL = 1000  # more pieces than a layer has
_ATTENTION = {GraphScope.ATTENTION: _ALL}
# of a mixture of experts, norm and router can be captured; what follows has sizes that change unless tokens are dropped
_FEED_FORWARD = {
    False: {GraphScope.FEED_FORWARD: _ALL},
    True: {GraphScope.ROUTER: 2, GraphScope.EXPERTS: _ALL},
}


@dataclass(frozen=True, slots=True)
class ModelChunk:
    """A run of layers of one pipeline stage: a unit of the pipeline schedule. Each entry is one layer."""

    virtual: int
    stage: int
    layers: tuple[Pieces, ...]

    @property
    def parameters(self) -> int:
        """Elements of this rank's parameters that all data ranks share."""
        return sum(piece.parameters for pieces in self.layers for piece in pieces)

    @property
    def expert_parameters(self) -> int:
        """Elements of this rank's experts."""
        return sum(piece.expert_parameters for pieces in self.layers for piece in pieces)


@lru_cache(maxsize=256)
def layer_pieces(shape: LayerShape, hidden: int, layout: Layout) -> Pieces:
    """One layer: norm, mixer, residual, norm, feed-forward, residual."""
    dtype, rows = layout.precision.activation, layout.sequence_tokens
    mixer, ffn = shape.mixer, shape.ffn
    mixed: Pieces = ()
    if isinstance(mixer, GroupedQuery):
        mixed = grouped_query(mixer, hidden, layout)
    elif isinstance(mixer, Latent):
        mixed = latent(mixer, hidden, layout)
    elif isinstance(mixer, GatedDelta):
        mixed = gated_delta(mixer, hidden, layout)
    forward: Pieces = ()
    if isinstance(ffn, MoeFfn):
        forward = moe(ffn, hidden, layout)
    elif isinstance(ffn, DenseFfn):
        forward = dense(ffn, hidden, layout)
    norm = norm_piece("norm", dtype, rows, hidden, shape.norm, layout.fused_norm)
    if layout.sequence_parallel:  # each rank's sees its own tokens
        norm = with_summed_weights(norm, layout, hidden)
    residual = residual_piece(dtype, rows, hidden, drops=layout.drops)
    halves = (
        _captured((norm, *mixed, residual) if mixed else (), _ATTENTION, layout),
        _captured(
            (norm, *forward, residual) if forward else (), _FEED_FORWARD[isinstance(ffn, MoeFfn)], layout
        ),
    )
    return tuple(piece for half in halves for piece in half)


def _captured(half: Pieces, scopes: dict[GraphScope, int], layout: Layout) -> Pieces:
    """The same pieces, with those marked that the layout launches as a graph."""
    count = max((count for scope, count in scopes.items() if scope in layout.graphs), default=0)
    return tuple(replace(p, graphed=True) if i < count else p for i, p in enumerate(half))


def layer_counts(model: Architecture, layout: Layout) -> list[int]:
    """Layers of every virtual chunk: equal, what is left over to the first ones.

    Raises E206 where there are fewer layers than chunks.
    """
    chunks = layout.pipeline * layout.chunks
    fewer = layout.first_layers_fewer + layout.last_layers_fewer
    if len(model.layers) + fewer < chunks:
        raise WindtunnelError(
            "E206",
            f"{len(model.layers)} layers cannot fill {chunks} pipeline chunks",
            hint="use fewer pipeline stages or fewer model chunks for each",
            values={
                "layers": len(model.layers),
                "stages": layout.pipeline,
                "chunks per stage": layout.chunks,
            },
        )
    each, left = divmod(len(model.layers) + fewer, chunks)
    counts = [each + (1 if i < left else 0) for i in range(chunks)]
    counts[0] -= layout.first_layers_fewer
    counts[-1] -= layout.last_layers_fewer
    return counts


def model_chunks(model: Architecture, layout: Layout) -> tuple[ModelChunk, ...]:
    """All chunks of the pipeline in order, the ends of the model included."""
    counts = layer_counts(model, layout)
    answers, begin = [], 0
    last = len(counts) - 1
    norm = model.layers[-1].norm if model.layers else Norm.RMS
    for virtual, count in enumerate(counts):
        layers = [layer_pieces(s, model.hidden, layout) for s in model.layers[begin : begin + count]]
        begin += count
        if virtual == 0:
            vision = vision_pieces(model.vision, layout, layer_pieces) if model.vision else ()
            layers = [*vision, embedding(model, layout), *layers]
        if virtual == last:
            layers = [*layers, head(model, layout, norm)]
        answers.append(ModelChunk(virtual, virtual % layout.pipeline, tuple(layers)))
    return tuple(answers)
