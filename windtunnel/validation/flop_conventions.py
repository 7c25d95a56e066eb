"""Model FLOPs of a step as sources count them: full attention, the output product, and recomputation where they say so.

Megatron-LM's count (arXiv 2104.04473, equation 3): six operations for every weight that a token meets, twelve times
layers, heads, head size and sequence for attention, a third more where whole layers are computed again.
"""

from __future__ import annotations

import math

from windtunnel.recipes.architecture import (
    Architecture,
    DenseFfn,
    GatedDelta,
    GroupedQuery,
    Latent,
    LayerShape,
)
from windtunnel.recipes.layout import HostLoad, Layout, Recompute

BACKWARD = 2.0
"""Backward over forward."""


def published_flops(model: Architecture, layout: Layout) -> float:
    """``step_flops`` as the layout's time counted: papers of 2021 and 2022 count what is computed again as well."""
    again = layout.recompute is Recompute.FULL and layout.host is HostLoad.EAGER_2021
    return step_flops(model, layout, recomputation=again)


def step_flops(model: Architecture, layout: Layout, *, recomputation: bool) -> float:
    """FLOPs of one step over all cards; NaN for layers that the convention does not know."""
    layers = sum(_forward(layer, model.hidden, layout.sequence) for layer in model.layers)
    output = 2.0 * model.hidden * model.vocabulary
    again = layers if recomputation else 0.0
    return layout.step_tokens * ((1.0 + BACKWARD) * (layers + output) + again)


def _forward(layer: LayerShape, hidden: int, sequence: int) -> float:
    """FLOPs of one token's forward pass."""
    mixer, ffn = layer.mixer, layer.ffn
    weights, scores = 0.0, 0.0
    if isinstance(mixer, GatedDelta):
        return math.nan
    if isinstance(mixer, GroupedQuery):
        weights += hidden * mixer.head_dim * (2 * mixer.heads + 2 * mixer.kv_heads)
        scores += 4.0 * sequence * mixer.heads * mixer.head_dim
    elif isinstance(mixer, Latent):
        query, heads = mixer.nope_dim + mixer.rope_dim, mixer.heads
        weights += hidden * (mixer.kv_rank + mixer.rope_dim) + heads * mixer.value_dim * hidden
        weights += mixer.kv_rank * heads * (mixer.nope_dim + mixer.value_dim)
        weights += (hidden + heads * query) * mixer.query_rank if mixer.query_rank else hidden * heads * query
        scores += 2.0 * sequence * heads * (query + mixer.value_dim)
    if isinstance(ffn, DenseFfn):
        weights += (3 if ffn.gated else 2) * hidden * ffn.width
    elif ffn is not None:
        products = 3 if ffn.gated else 2
        weights += hidden * (products * (ffn.top_k * ffn.width + ffn.shared_width) + ffn.experts)
    return 2.0 * weights + scores
