"""Bytes that one layer keeps from forward to backward, tensor by tensor.

The terms are those of Korthikanti et al. (arXiv 2205.05198, section 4), for kernels of today: attention is
fused (no score matrix), nothing is dropped out. T tokens, hidden h, in 16-bit activations:

* each normalisation keeps its input and its output: 4 h T;
* attention keeps queries, keys, values and its output, and one FP32 number a head and token;
* a gated feed-forward keeps both products and the product of the two: 6 f T; a plain one 4 f T;
* a mixture keeps the same for each chosen expert, and the tokens as they were sent: top_k (4 h + 6 f) T.

With FP8 products, what is kept for the weight gradient is the 8-bit copy (Transformer Engine). Where norms
and activations are not single kernels (``Layout.fused`` off, as transformers runs), a normalisation keeps its
input in FP32 and its result twice, and a gate's activation is kept too: a recording shows the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from windtunnel.recipes.layout import AttentionKernel, EagerCode, Layout, Recompute
from windtunnel.specs.model import Layer, ModelSpec, Norm
from windtunnel.specs.model_ffn import Dense, Moe
from windtunnel.specs.model_mixers import Attention, Compressed, GatedDelta, Latent, Mamba, Mixer, QueryNorm

DELTA_CHUNK = 64
"""Tokens of a chunk in flash-linear-attention's Gated DeltaNet; one such row a token and head is kept."""


def kept_bytes(model: ModelSpec, layer: Layer, layout: Layout) -> float:
    """Bytes that a layer keeps for one micro-batch on one rank, under the layout's recomputation."""
    residual = 2.0 * model.hidden * layout.sequence_tokens * model.streams
    if layout.recompute is Recompute.FULL:
        return residual
    if layout.recompute in (Recompute.SELECTIVE_OPS, Recompute.SELECTIVE_PRODUCTS):
        return residual + _second_products(model, layer, layout)
    return whole_bytes(model, layer, layout)


def whole_bytes(model: ModelSpec, layer: Layer, layout: Layout) -> float:
    """Bytes that a layer keeps when nothing is computed again."""
    copy = 1 if layout.precision.is_fp8 else 2  # what a product keeps of its input
    per_norm = norm_bytes(model.norm, layout) + copy
    norms = layer.norms * per_norm * model.hidden * layout.sequence_tokens * model.streams
    mixer = mixer_bytes(layer.mixer, layout, copy, model.norm) if layer.mixer else 0.0
    ffn = ffn_bytes(layer.ffn, model.hidden, layout, copy) if layer.ffn else 0.0
    return norms + mixer + ffn


def norm_bytes(norm: Norm, layout: Layout) -> int:
    """Kept of one number that is normalised, its result excluded. LayerNorm is one kernel everywhere."""
    if layout.fused_norm or norm is Norm.LAYER:
        return 2  # the input
    return 8 if norm is Norm.CENTRED else 6  # the input in FP32, and the scaled one in FP32 or 16 bits


def mixer_bytes(mixer: Mixer, layout: Layout, copy: int, norm: Norm = Norm.RMS) -> float:
    """Kept by the token mixer, normalisation excluded."""
    tokens, tensor = layout.tokens, layout.tensor
    if isinstance(mixer, Attention):
        queries, keys = mixer.heads * mixer.head_dim, max(mixer.kv_heads, tensor) * mixer.head_dim
        out = _copies_out(layout) * queries + (
            copy * queries if copy == 1 else 0
        )  # the fused kernel keeps its own output
        extra = 4 * queries if mixer.gated else 0
        if mixer.query_norm is not QueryNorm.NONE:
            extra += norm_bytes(norm, layout) * (queries + keys)
        scores = _score_matrix(mixer.heads, layout)
        return tokens * (2 * queries + 4 * keys + out + extra + 4 * mixer.heads) / tensor + scores
    if isinstance(mixer, Latent):
        latent = (norm_bytes(norm, layout) + 2) * (mixer.query_rank + mixer.kv_rank) + 2 * mixer.rope_dim
        wide = mixer.nope_dim + mixer.rope_dim
        out = _copies_out(layout) * mixer.value_dim
        heads = mixer.heads * (4 * wide + 2 * (mixer.nope_dim + mixer.value_dim) + out + 4)
        return tokens * (latent + (heads + (mixer.heads * mixer.value_dim if copy == 1 else 0)) / tensor)
    if isinstance(mixer, Compressed):
        queries = mixer.heads * mixer.head_dim
        return tokens * (4 * mixer.query_rank + 4 * mixer.head_dim + (4 * queries + 4 * mixer.heads) / tensor)
    if isinstance(mixer, GatedDelta):
        values = mixer.value_heads * mixer.value_dim
        gated_norm = 6 if layout.fused else 18  # values, gate and result; their FP32 forms too
        per_token = 4 * mixer.channels + gated_norm * values + mixer.value_heads * (8 + 2 * DELTA_CHUNK)
        return tokens * per_token / tensor
    return tokens * _mamba_bytes(mixer) / tensor


def ffn_bytes(ffn: Dense | Moe, hidden: int, layout: Layout, copy: int) -> float:
    """Kept by the feed-forward, normalisation excluded."""
    if isinstance(ffn, Dense):
        between = _between(ffn.width, ffn.gated, copy, layout.fused)
        if layout.fp8_activation_inputs:
            between -= (2 if ffn.gated else 1) * ffn.width  # one byte each instead of two
        return layout.tokens * between / layout.tensor
    routed = layout.sequence_tokens * ffn.top_k * layout.imbalance
    # TorchTitan weighs the experts' results in FP32
    result = 4 if not layout.fused and layout.eager is EagerCode.TORCHTITAN else 2
    sent = (copy + result) * (ffn.latent or hidden)
    inner = _between(ffn.width, ffn.gated, copy, layout.fused) / layout.expert_tensor
    shared = layout.tokens * _between(ffn.shared_width, ffn.gated, copy, layout.fused) / layout.tensor
    copied = 4 * hidden if ffn.router_fp32 and not layout.fused else 0
    router = layout.sequence_tokens * (8 * ffn.experts + copied)  # logits and probabilities in FP32
    return routed * (sent + inner) + shared + router


def backward_bytes(model: ModelSpec, layer: Layer, layout: Layout) -> float:
    """What lives beside kept activations while a layer's feed-forward is differentiated, at the most."""
    return max(transient for transient, _ in backward_stages(model, layer, layout))


def backward_stages(model: ModelSpec, layer: Layer, layout: Layout) -> Iterator[tuple[float, int]]:
    """Bytes beside kept activations, and elements of parameters with gradients, while a layer goes backward.

    First its activation function: what the last product kept is gone, and the gradients of its result and of
    its inputs are there. Then the first product's weights: nothing is kept between the products any more.
    """
    beside = 2.0 * model.hidden * layout.sequence_tokens  # the gradient that goes round by the residual
    copy = 1 if layout.precision.is_fp8 else 2
    ffn = layer.ffn
    if ffn is None:
        yield 2 * beside, 0
        return
    if isinstance(ffn, Dense):
        rows, split, elements = float(layout.tokens), layout.tensor, model.hidden * ffn.width
    else:
        # one gradient of the tokens as they were sent: in the place of the experts' result, which is gone
        rows, split = layout.sequence_tokens * ffn.top_k * layout.imbalance, layout.expert_tensor
        elements = (ffn.latent or model.hidden) * ffn.width * ffn.experts // layout.expert
    ways = 2 if ffn.gated else 1
    gradients = 2 * ways * ffn.width
    yield beside + rows * (gradients + (2 - copy) * ffn.width) / split, elements // split
    kept = _between(ffn.width, ffn.gated, copy, layout.fused)
    yield beside + rows * (gradients - kept) / split, (1 + ways) * elements // split


def _copies_out(layout: Layout) -> int:
    """Bytes kept of one number that attention results in: flex attention's own layout, and the product's."""
    return 4 if not layout.fused and layout.eager is EagerCode.TORCHTITAN else 2


def _between(width: int, gated: bool, copy: int, fused: bool = True) -> int:
    """Products into the activation and its result, of one token; unfused, the activated gate as well."""
    return ((4 if fused else 6) if gated else 2) * width + copy * width


def _score_matrix(heads: int, layout: Layout) -> float:
    """Scores and softmax without a fused kernel: 5 a s for each token (section 4.1)."""
    if layout.attention is not AttentionKernel.UNFUSED or layout.recompute is Recompute.SELECTIVE:
        return 0.0
    return 5.0 * heads / layout.tensor * layout.tokens * layout.sequence / layout.context


def _mamba_bytes(mixer: Mamba) -> int:
    return 4 * mixer.channels + 6 * mixer.inner + 8 * mixer.heads


def _second_products(model: ModelSpec, layer: Layer, layout: Layout) -> float:
    """TorchTitan's per-operation policy: attention's output and every second product are kept.

    The layer's last product is one of them, which no gradient needs: eager checkpointing keeps it all the same,
    compiled layers drop it.
    """
    tokens, tensor = layout.tokens, layout.tensor
    total = 0.0
    if isinstance(layer.mixer, Attention):
        mixer = layer.mixer
        queries, keys = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
        core = 0 if layout.recompute is Recompute.SELECTIVE_PRODUCTS else 2 * queries + 4 * mixer.heads
        # queries and values of three products, or one product of all
        joined = not layout.fused and layout.eager is EagerCode.TORCHTITAN
        products = 2 * queries + (4 if joined else 2) * keys
        total += tokens * (products + core) / tensor
    elif layer.mixer:
        total += mixer_bytes(layer.mixer, layout, 2) / 2
    if isinstance(layer.ffn, Dense):
        total += tokens * 2 * layer.ffn.width / tensor
        total += 0 if layout.fused else 2 * model.hidden * layout.sequence_tokens
    elif layer.ffn:
        total += ffn_bytes(layer.ffn, model.hidden, layout, 2) / 2
    return total
