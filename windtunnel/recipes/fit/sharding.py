"""How many parameters a rank holds under tensor, expert and pipeline parallelism.

Tensor parallelism splits heads and widths as Megatron-LM does; what it leaves whole (normalisations, routers,
down-projections of latent attention, key-value heads fewer than ranks) is counted whole on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.specs.model import Layer, ModelSpec
from windtunnel.specs.model_ffn import Dense, Moe
from windtunnel.specs.model_mixers import Attention, Compressed, Latent, Mixer


@dataclass(frozen=True, slots=True)
class Held:
    """Parameters of one rank: those that all data ranks share, and those of its experts."""

    dense: int
    expert: int

    @property
    def total(self) -> int:
        """Both."""
        return self.dense + self.expert


def mixer_parameters(mixer: Mixer, hidden: int, tensor: int) -> int:
    """Parameters of a mixer on one of ``tensor`` ranks."""
    whole = mixer.parameters(hidden)
    if tensor == 1:
        return whole
    if isinstance(mixer, Latent):
        rank = mixer.query_rank
        kept = hidden * (rank + mixer.kv_rank + mixer.rope_dim) + rank + mixer.kv_rank
        kept += mixer.indexer.parameters(hidden, rank or hidden) if mixer.indexer else 0
        return kept + -(-(whole - kept) // tensor)
    if isinstance(mixer, Compressed):
        kept = hidden * (mixer.query_rank + mixer.head_dim)
        return kept + -(-(whole - kept) // tensor)
    if isinstance(mixer, Attention) and mixer.kv_heads < tensor:
        keys = 2 * mixer.kv_heads * mixer.head_dim * hidden
        return -(-(whole - keys) // tensor) + 2 * mixer.head_dim * hidden
    return -(-whole // tensor)


def ffn_parameters(ffn: Dense | Moe, hidden: int, tensor: int, expert: int, expert_tensor: int) -> Held:
    """Parameters of a feed-forward on one rank."""
    if isinstance(ffn, Dense):
        return Held(-(-ffn.parameters(hidden) // tensor), 0)
    router = ffn.experts * hidden
    common = router + -(-(ffn.common_parameters(hidden) - router) // tensor)
    return Held(common, -(-ffn.routed_parameters(hidden) // (expert * expert_tensor)))


def layer_parameters(model: ModelSpec, layer: Layer, tensor: int, expert: int, expert_tensor: int) -> Held:
    """Parameters of one layer on one rank."""
    mixer = mixer_parameters(layer.mixer, model.hidden, tensor) if layer.mixer else 0
    ffn = Held(0, 0)
    if layer.ffn:
        ffn = ffn_parameters(layer.ffn, model.hidden, tensor, expert, expert_tensor)
    return Held(mixer + ffn.dense + model.layer_norm_parameters(layer), ffn.expert)


def stages(model: ModelSpec, pipeline: int, first_fewer: int = 0, last_fewer: int = 0) -> list[range]:
    """The layers of each pipeline stage, as even as they go; earlier stages take what is left over."""
    count = len(model.layers)
    share = [(count + first_fewer + last_fewer) // pipeline] * pipeline
    for extra in range((count + first_fewer + last_fewer) % pipeline):
        share[extra] += 1
    share[0] -= first_fewer
    share[-1] -= last_fewer
    ends = [sum(share[: stage + 1]) for stage in range(pipeline)]
    return [range(end - size, end) for end, size in zip(ends, share)]


def ends_parameters(model: ModelSpec, stage: int, pipeline: int, tensor: int) -> int:
    """Embedding, vision tower, head and last normalisation held by a stage."""
    total = 0
    if stage == 0:
        total += -(-model.embedding_parameters // tensor)
        total += -(-model.vision.parameters // tensor) if model.vision else 0
    if stage == pipeline - 1:
        tied_copy = model.vocabulary * model.hidden if model.tied and pipeline > 1 else 0
        total += -(-(model.head_parameters + tied_copy) // tensor) + model.norm_parameters
    return total
