"""A model as recipes see it: what each layer mixes tokens with, and what feed-forward it has."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.specs.model import Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedQuery:
    """Softmax attention with query heads sharing key-value heads (MHA, GQA, MQA)."""

    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False
    output_bias: bool = False
    query_norm: Norm | None = None
    gated: bool = False  # an output gate of the queries' size (Qwen3-Next, Qwen3.5)
    window: int = 0
    chunk: int = 0  # tokens of a stretch beyond which keys are not seen; 0: none. Inference only
    rotary: bool = True
    rotary_dims: int = 0  # of each head that are turned; 0: all
    causal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434). ``query_rank`` 0: plain queries."""

    heads: int
    query_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    norm: Norm = Norm.RMS


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDelta:
    """Gated DeltaNet (arXiv 2412.06464) with a short convolution."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    convolution: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseFfn:
    """Two products with an activation between, or three with a gate (SwiGLU)."""

    width: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeFfn:
    """Experts of ``width``, ``top_k`` for each token, and ``shared_width`` that all tokens pass through.

    ``groups``, ``groups_chosen``: a token's experts lie in some of the groups only; 0: anywhere.
    ``latent``: width that tokens are projected to before the experts; 0: the hidden size.
    ``shared_gate``: what the shared part makes is scaled by a learned gate of each token.
    ``router_fp32``: the router works on an FP32 copy of the tokens. ``weights_fp32``: its weights stay in FP32.
    """

    experts: int
    top_k: int
    width: int
    shared_width: int = 0
    gated: bool = True
    groups: int = 0
    groups_chosen: int = 0
    latent: int = 0
    shared_gate: bool = False
    router_fp32: bool = False
    weights_fp32: bool = False


Mixer = GroupedQuery | Latent | GatedDelta
Ffn = DenseFfn | MoeFfn


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """One layer; hybrids have layers with only one of the two."""

    mixer: Mixer | None
    ffn: Ffn | None
    norm: Norm = Norm.RMS


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTower:
    """A vision transformer in front: patches of ``patch_elements`` inputs, merged ``merge`` to one token.

    ``output``: the decoder's hidden size. ``patches``: patches of all images of one sequence.
    ``positions``: learned ones. ``deep_mergers``: further mergers, whose output enters deeper layers (DeepStack).
    """

    layers: tuple[LayerShape, ...]
    hidden: int
    patch_elements: int
    merge: int
    output: int
    patches: int = 0
    positions: int = 0
    deep_mergers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder, with a vision tower in front where ``vision`` is set."""

    hidden: int
    vocabulary: int
    layers: tuple[LayerShape, ...]
    tied: bool = False
    learned_positions: int = 0
    vision: VisionTower | None = None
