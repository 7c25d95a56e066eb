"""What data sheet peaks alone would allow: the bound that no prediction may pass.

Prefill: products of the active parameters and the attention that masks leave, at the peak of the precision. Decode:
the longer of reading once the weights that a step touches and what every sequence's tokens see, and the products at
peak. Nothing is lost to launches, tiles, networks or imbalance; embeddings are looked up and the vision tower rests.
"""

from __future__ import annotations

from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.expert_placement import slots_of
from windtunnel.serving.memory import CACHE_BYTES, expert_bytes, token_elements
from windtunnel.specs.model import Layer
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Attention, Latent

_PEAKS = {Precision.FP8: "fp8", Precision.FP8_BLOCK: "fp8", Precision.MXFP8: "fp8", Precision.NVFP4: "fp4"}
_NARROW_CACHE = "float8_e4m3fn"


def prefill_tokens_per_s_per_card(found: Deployment, prompt: float) -> float:
    """Prompt tokens a second and card for prompts of this length."""
    attention = sum(
        _pair_flops(layer, absorbed=False) * _seen_by_prompt(layer, prompt) for layer in found.model.layers
    )
    return 1.0 / (2 * found.model.active_parameters / _peak(found) + attention / _attention_peak(found))


def decode_tokens_per_s_per_card(found: Deployment, batch: float, context: float) -> float:
    """Output tokens a second and card with ``batch`` sequences of ``context`` tokens on each attention rank."""
    chip, layout, model = found.cluster.chip, found.layout, found.model
    if batch <= 0:
        return 0.0
    tokens = batch * layout.data
    cached = sum(
        token_elements(layer, layout.tensor) * _seen_by_token(layer, context) for layer in model.layers
    )
    read = _weights_read(found, tokens) + batch * (
        cached * CACHE_BYTES[layout.cache] + found.memory.state_bytes
    )
    attention = sum(
        _pair_flops(layer, absorbed=True) * _seen_by_token(layer, context) for layer in model.layers
    )
    flops_s = 2 * model.active_parameters / _peak(found) + attention / _attention_peak(found)
    seconds = max(read / chip.memory_bytes_per_s.value, tokens * flops_s / layout.cards)
    return tokens / seconds / layout.cards * found.options.speculation.yielded


def _peak(found: Deployment) -> float:
    peaks = found.cluster.chip.peak_flops
    name = _PEAKS.get(found.layout.precision, "bf16")
    return peaks[name].value if name in peaks else peaks["bf16"].value


def _attention_peak(found: Deployment) -> float:
    """Of 8-bit units where the cache has 8 bits: some kernels multiply as the cache is stored."""
    peaks = found.cluster.chip.peak_flops
    return peaks["fp8" if found.layout.cache == _NARROW_CACHE and "fp8" in peaks else "bf16"].value


def _pair_flops(layer: Layer, *, absorbed: bool) -> float:
    """FLOP of one layer's attention for one pair of query and key, all heads."""
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        return 4.0 * mixer.heads * mixer.head_dim
    if isinstance(mixer, Latent):
        if absorbed:
            return 2.0 * mixer.heads * (2 * mixer.kv_rank + mixer.rope_dim)
        return 2.0 * mixer.heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim)
    return 0.0


def _seen_by_token(layer: Layer, context: float) -> float:
    """Tokens before it that a token sees, on average over places in a stretch."""
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        if mixer.chunk and context > mixer.chunk:
            return mixer.chunk / 2
        return min(context, mixer.window) if mixer.window else context
    if isinstance(mixer, Latent) and mixer.indexer is not None:
        return min(context, mixer.indexer.top_k)
    return context


def _seen_by_prompt(layer: Layer, prompt: float) -> float:
    """The same, on average over the tokens of a prompt."""
    mixer = layer.mixer
    if isinstance(mixer, Attention) and mixer.chunk:
        return min(prompt, mixer.chunk) / 2
    most = _seen_by_token(layer, prompt)
    return most - most * most / (2 * prompt)


def _weights_read(found: Deployment, tokens: float) -> float:
    """Bytes of weights on a card that a step of ``tokens`` tokens is expected to touch; drafting costs nothing."""
    layout, model = found.layout, found.model
    read = float(found.memory.weights - found.memory.draft_weights)
    if not model.tied:
        read -= model.embedding_parameters / layout.tensor * 2
    if model.vision:
        read -= model.vision.parameters * 2
    for layer in model.layers:
        ffn = layer.ffn
        if isinstance(ffn, Moe):
            one = expert_bytes(ffn, model.hidden, layout)
            held = slots_of(ffn.experts, layout.expert, layout.redundant) * one * layout.expert / layout.cards
            touched = 1 - (1 - ffn.top_k / ffn.experts) ** tokens
            read -= held - touched * ffn.experts * one / layout.cards
    return read
