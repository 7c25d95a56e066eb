"""What data sheet peaks alone would allow: the bound that no prediction may pass.

Prefill: products of the active parameters and causal attention at the peak of the precision. Decode: the longer
of reading the weights a step touches and every sequence's cache once, and the products at peak. Nothing is lost
to launches, tiles, networks or imbalance.
"""

from __future__ import annotations

from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import Deployment
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Attention, Latent

_PEAKS = {Precision.FP8: "fp8", Precision.FP8_BLOCK: "fp8", Precision.MXFP8: "fp8", Precision.NVFP4: "fp4"}


def prefill_tokens_per_s_per_card(found: Deployment, prompt: float) -> float:
    """Prompt tokens a second and card for prompts of this length."""
    peak = _peak(found)
    half = found.cluster.chip.peak_flops["bf16"].value
    attention = sum(_pair_flops(found, index, absorbed=False) for index in range(len(found.model.layers)))
    return 1.0 / (2 * found.model.active_parameters / peak + attention * prompt / 2 / half)


def decode_tokens_per_s_per_card(found: Deployment, batch: float, context: float) -> float:
    """Output tokens a second and card with ``batch`` sequences of ``context`` tokens on each attention rank."""
    chip, layout, model = found.cluster.chip, found.layout, found.model
    if batch <= 0:
        return 0.0
    tokens = batch * layout.data
    idle = sum(_idle_bytes(found, index, tokens) for index in range(len(model.layers)))
    read = (found.memory.weights - idle) + batch * (
        context * found.memory.token_bytes + found.memory.state_bytes
    )
    attention = sum(_pair_flops(found, index, absorbed=True) for index in range(len(model.layers)))
    flops_s = 2 * model.active_parameters / _peak(found)
    flops_s += attention * context / chip.peak_flops["bf16"].value
    seconds = max(read / chip.memory_bytes_per_s.value, tokens * flops_s / layout.cards)
    return tokens / seconds / layout.cards * found.options.speculation.yielded


def _peak(found: Deployment) -> float:
    peaks = found.cluster.chip.peak_flops
    name = _PEAKS.get(found.layout.precision, "bf16")
    return peaks[name].value if name in peaks else peaks["bf16"].value


def _pair_flops(found: Deployment, index: int, *, absorbed: bool) -> float:
    """FLOP of one layer's attention for one pair of query and key, all heads."""
    mixer = found.model.layers[index].mixer
    if isinstance(mixer, Attention):
        return 4.0 * mixer.heads * mixer.head_dim
    if isinstance(mixer, Latent):
        if absorbed:
            return 2.0 * mixer.heads * (2 * mixer.kv_rank + mixer.rope_dim)
        return 2.0 * mixer.heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim)
    return 0.0


def _idle_bytes(found: Deployment, index: int, tokens: float) -> float:
    """Expert weights on a card that no token of a step is expected to touch."""
    ffn = found.model.layers[index].ffn
    if not isinstance(ffn, Moe):
        return 0.0
    width = 1.0 if found.layout.precision in _PEAKS else 2.0
    untouched = float((1 - ffn.top_k / ffn.experts) ** tokens)
    return untouched * ffn.routed_parameters(found.model.hidden) * width / found.layout.cards
