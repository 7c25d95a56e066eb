"""What one card of a replica holds: weights, room for a step, and the cache with its blocks.

Weights follow from the model's parameters and the layout, the cache from what each mixer keeps. The room for
activations of a step is an estimate (engines measure it with a trial step); it is named as such.

Models with recurrent state: attention's block is made as large as the state's page, as vLLM aligns it, and
layers share the cache in groups of equal number, one block of the pool holding one group's page. SGLang keeps states
in a pool of their own (``StatePool``).

Where tokens are drafted, the drafting layer's weights are there too, and its cache grows with the others': in vLLM one
more layer in the same blocks, in SGLang a pool of its own for as many tokens, which is reckoned with theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from windtunnel.memory.overhead import usable_bytes
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.draft_layer import draft_layers, joining_parameters
from windtunnel.serving.expert_placement import slots_of
from windtunnel.specs.model import Layer, ModelSpec
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Attention, GatedDelta, Latent, Mamba, Mixer
from windtunnel.specs.schema import Chip
from windtunnel.units import GIB

_BITS = {Precision.FP32: 32, Precision.NVFP4: 4, Precision.FP8: 8, Precision.FP8_BLOCK: 8, Precision.MXFP8: 8}
_SCALE_BITS = {Precision.FP8_BLOCK: 32 / 128**2, Precision.MXFP8: 8 / 32, Precision.NVFP4: 8 / 16}
CACHE_BYTES = {"bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float32": 4}
STATE_BYTES = 4
MXFP4_BYTES = (4 + 8 / 32) / 8
"""Of a weight: four bits, and a scale of eight for every 32."""
ALIGNMENT = 16
"""Attention blocks of hybrid models are whole multiples of this many tokens."""


@dataclass(frozen=True, slots=True)
class CardMemory:
    """Bytes on one card.

    Attributes:
        usable: what the engine may use: ``gpu_memory_utilization`` of the card, less what lies outside.
        weights: all of them. draft_weights: those of the drafting layer among them.
        activations: estimated room for one step. cache: what is left for the cache.
        token_bytes: cache of one token, the drafting layer's too. state_bytes: recurrent state of one sequence.
        block_tokens: tokens in a block. blocks: blocks that fit.
        blocks_per_sequence: further blocks that a running sequence holds for its state.
        state_slots: states that fit into a pool of their own.
    """

    usable: int
    weights: int
    activations: int
    cache: int
    token_bytes: int
    state_bytes: int
    block_tokens: int
    blocks: int
    blocks_per_sequence: int
    state_slots: int = 0
    draft_weights: int = 0

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache of one attention rank holds."""
        return self.blocks * self.block_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePool:
    """How SGLang 0.5.23 divides the cache between states and tokens.

    Attributes:
        ratio: memory of states ÷ of tokens (``--mamba-full-memory-ratio``). per_sequence: states for each that runs.
        sequences: most that run. drafts: tokens that a check of drafts computes, each of which leaves a state.
        reuse: whether prompts find states again; else there is one for each that runs.
    """

    ratio: float
    per_sequence: int
    sequences: int
    drafts: int = 0
    reuse: bool = True

    def divide(self, cache: int, state: int) -> tuple[int, int]:
        """States that fit, and the bytes left for tokens. One state of padding each."""
        per, drafts = self.per_sequence, self.drafts
        if self.reuse:
            whole = cache * self.ratio / (1 + self.ratio)
            slots = int((whole - state * (1 + drafts)) // (state * (1 + drafts / per)))
        else:
            slots = self.sequences
        checked = (min(self.sequences, slots // per) + 1) * drafts * state
        if slots < per:
            return 0, 0
        return slots, max(0, cache - (slots + 1) * state - checked)


def card_memory(
    model: ModelSpec, layout: ServingLayout, chip: Chip, *, utilization: float, batched_tokens: int,
    sequences: int, block_tokens: int, of_free: bool = False, pool: StatePool | None = None,
    drafts: int = 0,
) -> CardMemory:  # fmt: skip
    """Memory of one card. ``blocks`` is 0 where weights and activations leave nothing.

    Args:
        utilization: share of the card that the engine takes; with ``of_free``, as TensorRT-LLM counts, the cache's
            share of what weights and activations leave free.
        pool: how states are kept, where not in blocks of the cache. drafts: tokens drafted a step.
    """
    whole = chip.memory_bytes.value * (1.0 if of_free else utilization)
    usable = int(min(whole, usable_bytes(chip)))
    drafting = draft_weight_bytes(model, layout, drafts)
    weights = weight_bytes(model, layout) + drafting
    activations = activation_bytes(model, layout, batched_tokens, sequences)
    cache = usable - weights - activations
    if of_free and cache > 0:
        cache = int(cache * utilization)
    element = CACHE_BYTES[layout.cache]
    kept = (*model.layers, *draft_layers(model, drafts))
    attending = [n for layer in kept if (n := token_elements(layer, layout.tensor))]
    token_bytes = sum(attending) * element
    states = [_state_bytes(layer, layout.tensor) for layer in model.layers]
    held = CardMemory(
        usable, weights, activations, cache, token_bytes, sum(states), block_tokens, 0, 0,
        draft_weights=drafting,
    )  # fmt: skip
    if not sum(states):
        page = token_bytes * block_tokens
        return replace(held, blocks=max(0, cache // page) if page else 0)
    if pool is not None:
        slots, left = pool.divide(max(0, cache), sum(states))
        return replace(held, blocks=left // (token_bytes * block_tokens), state_slots=slots)
    # every state's page has room for what its convolution looks back to at each draft
    state = max(_state_bytes(layer, layout.tensor, drafts) for layer in model.layers)
    per_token = max(attending) * element
    aligned = -(-state // (per_token * ALIGNMENT)) * ALIGNMENT
    group = len(attending)
    state_groups = -(-sum(1 for n in states if n) // group)
    blocks = max(0, cache // (aligned * per_token * group))
    return replace(held, block_tokens=aligned, blocks=blocks, blocks_per_sequence=state_groups)


def weight_bytes(model: ModelSpec, layout: ServingLayout) -> int:
    """Weights on one card; embeddings, norms and routers stay in 16 bit."""
    quantised = _weight_width(layout)
    ends = (model.embedding_parameters + model.head_parameters) / layout.tensor * 2
    vision = model.vision.parameters * 2 if model.vision else 0
    layers = sum(_layer_bytes(model, layer, layout, quantised) for layer in model.layers)
    return int(ends + vision + layers)


def draft_weight_bytes(model: ModelSpec, layout: ServingLayout, drafts: int) -> int:
    """Weights of the drafting layer on one card; what joins its inputs is whole on every rank, in 16 bit."""
    quantised = _weight_width(layout)
    layers = draft_layers(model, drafts)
    joining = len(layers) * joining_parameters(model) * 2
    return int(joining + sum(_layer_bytes(model, layer, layout, quantised) for layer in layers))


def expert_bytes(ffn: Moe, hidden: int, layout: ServingLayout) -> float:
    """One routed expert."""
    return ffn.expert_parameters(hidden) * (MXFP4_BYTES if layout.narrow_experts else _weight_width(layout))


def _weight_width(layout: ServingLayout) -> float:
    """Bytes of a quantised weight with its share of the scales."""
    return (_BITS.get(layout.precision, 16) + _SCALE_BITS.get(layout.precision, 0)) / 8


def _layer_bytes(model: ModelSpec, layer: Layer, layout: ServingLayout, quantised: float) -> float:
    ways, hidden = layout.tensor, model.hidden
    total = model.layer_norm_parameters(layer) * 2.0
    if layer.mixer is not None:
        whole = _replicated(layer, hidden)
        behind = _behind(layer.mixer, hidden)
        front = layer.mixer.parameters(hidden) - whole - behind
        total += (whole + front / ways) * (2 if layout.wide_inputs else quantised)
        total += behind / ways * quantised
    if isinstance(layer.ffn, Moe):
        slots = slots_of(layer.ffn.experts, layout.expert, layout.redundant)
        routed = slots * expert_bytes(layer.ffn, hidden, layout) * layout.expert / layout.cards
        router = layer.ffn.experts * hidden
        shared = layer.ffn.common_parameters(hidden) - router
        total += routed + router * 2 + shared * quantised / (1 if layout.data > 1 else ways)
    elif layer.ffn is not None:
        total += layer.ffn.parameters(hidden) * quantised / ways
    return total


def _behind(mixer: Mixer, hidden: int) -> int:
    """Parameters of the product behind attention."""
    if isinstance(mixer, Attention):
        return mixer.heads * mixer.head_dim * hidden
    return mixer.heads * mixer.value_dim * hidden if isinstance(mixer, Latent) else 0


def _replicated(layer: Layer, hidden: int) -> int:
    """Parameters of a mixer that every tensor-parallel rank holds whole: latent attention's down products."""
    mixer = layer.mixer
    if not isinstance(mixer, Latent):
        return 0
    return hidden * (mixer.query_rank + mixer.kv_rank + mixer.rope_dim)


def activation_bytes(model: ModelSpec, layout: ServingLayout, tokens: int, sequences: int) -> int:
    """Largest room of a step, estimated: residual, its norm, a layer's widest pair, and FP32 logits."""
    widest = max(_widest(layer, layout) for layer in model.layers)
    logits = sequences * model.vocabulary // layout.tensor * 6
    return int(tokens * (4 * model.hidden + 2 * widest) * 2 + logits + 0.5 * GIB)


def _widest(layer: Layer, layout: ServingLayout) -> int:
    ffn = layer.ffn
    if isinstance(ffn, Moe):
        share = layout.cards // layout.expert
        return 2 * ffn.top_k * ffn.width // max(1, share if layout.expert > 1 else layout.tensor)
    return 2 * ffn.width // layout.tensor if ffn is not None else 0


def token_elements(layer: Layer, ways: int) -> int:
    """Cache elements of one token on one rank; heads fewer than ranks and latents are kept by every rank."""
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        return 2 * max(1, mixer.kv_heads // ways) * mixer.head_dim
    return mixer.cache_elements(1) if isinstance(mixer, Latent) else 0


def _state_bytes(layer: Layer, ways: int, drafts: int = 0) -> int:
    mixer = layer.mixer
    if not isinstance(mixer, GatedDelta | Mamba):
        return 0
    convolution = mixer.convolution_elements + mixer.channels * drafts
    return (mixer.state_elements * STATE_BYTES + convolution * 2) // ways
