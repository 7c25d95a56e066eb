"""Layers of a decoder as model code runs them, in the operations of ``parts``.

A mixer or feed-forward gets the normalised rows of its rank and answers rows to be added to the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.recipes.layout import EagerCode, Layout
from windtunnel.recipes.memory import experts, parts
from windtunnel.recipes.memory.graph import Graph, Value
from windtunnel.specs.model import Layer, ModelSpec
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Attention, Compressed, GatedDelta, Latent, Mamba, Mixer, QueryNorm

DELTA_CHUNK = 64
"""Tokens of a chunk in flash-linear-attention's Gated DeltaNet; its inverse has one such row a token and head."""


@dataclass(frozen=True, slots=True)
class LayerCode:
    """One layer of ``model`` under ``layout``. ``tables``: of the rotary embedding, where the model keeps them."""

    model: ModelSpec
    layer: Layer
    layout: Layout
    tables: Sequence[Value] = ()

    def __call__(self, graph: Graph, x: Value) -> Value:
        """Run it on the residual stream ``x``."""
        model, layer, layout = self.model, self.layer, self.layout
        columns = model.hidden * model.streams
        if layer.mixer is not None:
            y = parts.rms_norm(graph, x, columns, layout, model.norm)
            y = self._one_stream(graph, y)
            y = self._mixer(graph, layer.mixer, y)
            x = parts.add(graph, x, y)
            del y
        if layer.ffn is not None:
            y = parts.rms_norm(graph, x, columns, layout, model.norm)
            y = self._one_stream(graph, y)
            if isinstance(layer.ffn, Moe):
                y = experts.mixture(graph, y, layer.ffn, model.hidden, layout)
            else:
                y = experts.dense(graph, y, layer.ffn, model.hidden, layout)
            x = parts.add(graph, x, y)
        return x

    def rotary_tables(self, graph: Graph, dims: int) -> Sequence[Value]:
        """Those of the model, or TorchTitan's own of every layer: one complex number for two dimensions."""
        if self.tables or self.layout.fused:
            return self.tables
        return (graph.constant(self.layout.tokens * dims * 4, "aten.gather"),) * 2

    def _one_stream(self, graph: Graph, y: Value) -> Value:
        if self.model.streams == 1:
            return y
        return graph.call("aten.mm", y.elements // self.model.streams, y.width, [y], saves=(y,))

    def _mixer(self, graph: Graph, mixer: Mixer, x: Value) -> Value:
        if isinstance(mixer, Attention):
            return _grouped_query(graph, x, mixer, self)
        if isinstance(mixer, Latent):
            return _latent(graph, x, mixer, self)
        if isinstance(mixer, GatedDelta):
            return _gated_delta(graph, x, mixer, self)
        return _by_kept_bytes(graph, x, mixer, self)


def _grouped_query(graph: Graph, x: Value, mixer: Attention, code: LayerCode) -> Value:
    layout, hidden = code.layout, code.model.hidden
    heads = max(1, mixer.heads // layout.tensor)
    kv_heads = max(1, mixer.kv_heads // layout.tensor)
    q, kv, tokens = heads * mixer.head_dim, kv_heads * mixer.head_dim, layout.tokens
    wide = q * (2 if mixer.gated else 1)
    gate = None
    if parts.products_apart(layout):
        x = parts.gathered(graph, x, layout)
        queries = parts.linear(graph, x, hidden, wide, bias=mixer.bias)
        if mixer.gated:
            gate = queries = graph.view(queries, "aten.cat", joins=True)
            queries = graph.call("aten.clone", tokens * q, x.width, [queries], gradients=(None,))
        queries = _query_norm(graph, _heads_apart(graph, queries, layout), mixer, code)
        keys = parts.linear(graph, x, hidden, kv, bias=mixer.bias)
        keys = _query_norm(graph, _heads_apart(graph, keys, layout), mixer, code)
        values = parts.linear(graph, x, hidden, kv, bias=mixer.bias)
        del x
    else:
        x = parts.entered(graph, x, layout)
        whole = parts.column(graph, x, hidden, wide + 2 * kv, layout, bias=mixer.bias)
        if parts.by_megatron(layout):
            values = parts.sized(graph.view(whole, "aten.cat", joins=True), tokens * kv)
            gate = queries = parts.sized(values, tokens * q)
            keys = values
            if mixer.query_norm is not QueryNorm.NONE:
                queries = _query_norm(graph, queries, mixer, code)
                keys = _query_norm(graph, keys, mixer, code)
        elif layout.fused:
            gate = queries = keys = values = whole
            if mixer.query_norm is not QueryNorm.NONE:
                gate = values = parts.sized(graph.view(whole, "aten.cat", joins=True), tokens * kv)
                queries = _query_norm(graph, parts.sized(values, tokens * q), mixer, code)
                keys = _query_norm(graph, values, mixer, code)
        else:
            whole = graph.view(whole, "aten.cat", joins=True)
            if mixer.gated:
                gate = graph.call("aten.clone", tokens * q, whole.width, [whole], gradients=(None,))
            queries, keys, values = (
                graph.call("aten.clone", tokens * part, whole.width, [whole], gradients=(None,))
                for part in (q, kv, kv)
            )
            queries = _query_norm(graph, queries, mixer, code)
            keys = _query_norm(graph, keys, mixer, code)
        del whole
    queries, keys = parts.rotary(graph, (queries, keys), code.rotary_tables(graph, mixer.head_dim), layout)
    out = parts.attention(graph, queries, keys, values, heads, q, layout)
    # they live until the layer returns, as its code's own names do
    out = parts.laid_out(graph, out, layout)
    if mixer.gated and gate is not None:
        out = _gated(graph, out, gate, layout)
    del gate
    return parts.row(graph, out, q, hidden, layout)


def _heads_apart(graph: Graph, x: Value, layout: Layout) -> Value:
    """Heads outside the length: what the rotary embedding gives back is copied for the product's gradient."""
    return x if layout.fused else graph.view(x, "aten.clone")


def _query_norm(graph: Graph, x: Value, mixer: Attention, code: LayerCode) -> Value:
    if mixer.query_norm is QueryNorm.NONE:
        return x
    return parts.rms_norm(graph, x, mixer.head_dim, code.layout, code.model.norm)


def _gated(graph: Graph, out: Value, gate: Value, layout: Layout) -> Value:
    """Attention's result times the sigmoid of the gate."""
    if layout.fused:
        return graph.call("windtunnel.fused", out.elements, out.width, [out], saves=(out, gate))
    opened = graph.call(
        "aten.sigmoid", out.elements, out.width, [gate], saves_result=True, gradients=(out.nbytes,)
    )
    return parts.multiply(graph, out, opened)


def _latent(graph: Graph, x: Value, mixer: Latent, code: LayerCode) -> Value:
    layout, hidden = code.layout, code.model.hidden
    heads, tokens = max(1, mixer.heads // layout.tensor), layout.tokens
    wide, norm = mixer.nope_dim + mixer.rope_dim, code.model.norm
    x = parts.entered(graph, x, layout)
    if mixer.query_rank:
        down = parts.linear(graph, x, hidden, mixer.query_rank)
        down = parts.rms_norm(graph, down, mixer.query_rank, layout, norm)
        queries = parts.column(graph, down, mixer.query_rank, heads * wide, layout)
        del down
    else:
        queries = parts.column(graph, x, hidden, heads * wide, layout)
    both = parts.linear(graph, x, hidden, mixer.kv_rank + mixer.rope_dim)
    both = graph.view(both, "aten.cat", joins=True)
    rows = both.elements // (mixer.kv_rank + mixer.rope_dim)
    expanded_width = heads * (mixer.nope_dim + mixer.value_dim)
    if not layout.fused:
        queries = graph.view(queries, "aten.cat", joins=True)
        turned = [
            parts.sized(queries, tokens * heads * mixer.rope_dim),
            parts.sized(both, tokens * mixer.rope_dim),
        ]
        turned_q, turned_k = parts.rotary(graph, turned, code.rotary_tables(graph, mixer.rope_dim), layout)
        del turned
        whole_q = graph.call(
            "aten.cat", queries.elements, queries.width, [queries, turned_q], gradients=(None, None)
        )
    latent = parts.rms_norm(graph, parts.sized(both, rows * mixer.kv_rank), mixer.kv_rank, layout, norm)
    expanded = parts.column(graph, latent, mixer.kv_rank, expanded_width, layout)
    del latent
    if layout.fused:
        keys = graph.call(
            "windtunnel.fused", tokens * heads * wide, expanded.width, [expanded, both],
            gradients=(expanded.nbytes, tokens * mixer.rope_dim * both.width),
        )  # fmt: skip
        out = parts.attention(graph, queries, keys, expanded, heads, heads * mixer.value_dim, layout)
        del keys
    else:
        expanded = graph.view(expanded, "aten.cat", joins=True)
        keys = graph.call(
            "aten.cat", tokens * heads * wide, expanded.width, [expanded, turned_k],
            gradients=(None, tokens * mixer.rope_dim * both.width),
        )  # fmt: skip
        out = parts.attention(graph, whole_q, keys, expanded, heads, heads * mixer.value_dim, layout)
    out = parts.laid_out(graph, out, layout)
    return parts.row(graph, out, heads * mixer.value_dim, hidden, layout)


def _gated_delta(graph: Graph, x: Value, mixer: GatedDelta, code: LayerCode) -> Value:
    layout, hidden, tokens = code.layout, code.model.hidden, code.layout.tokens
    channels = mixer.channels // layout.tensor
    heads = max(1, mixer.value_heads // layout.tensor)
    inner = heads * mixer.value_dim
    x = parts.gathered(graph, x, layout)
    qkv = parts.linear(graph, x, hidden, channels)
    z = parts.linear(graph, x, hidden, inner)
    rate = parts.linear(graph, x, hidden, heads)
    decay = parts.linear(graph, x, hidden, heads)
    del x
    mixed = graph.call(
        "windtunnel.causal_conv1d", tokens * channels, qkv.width, [qkv], saves=(qkv,), before=(qkv.nbytes,)
    )
    del qkv
    mixed = graph.view(mixed, "aten.cat", joins=True)
    rate = parts.unary(graph, "aten.sigmoid", rate, saves_result=True)
    decay = parts.unary(graph, "aten.softplus", parts.cast(graph, decay, parts.WIDE))
    state = mixer.key_dim * mixer.value_dim * heads * layout.micro_batch * parts.WIDE
    held = (
        [graph.constant(tokens * heads * DELTA_CHUNK * 2, "windtunnel.gated_delta_chunk")]
        if layout.fused
        else []
    )
    out = graph.call(
        "windtunnel.gated_delta_chunk", tokens * inner, mixed.width, [mixed, decay, rate],
        saves=(mixed, decay, rate, *held), scratch=(state,), gradients=(mixed.nbytes, decay.nbytes, rate.nbytes),
    )  # fmt: skip
    del mixed, decay, rate, held
    out = _gated_norm(graph, out, z, mixer.value_dim, layout)
    return parts.row(graph, out, inner, hidden, layout)


def _gated_norm(graph: Graph, x: Value, gate: Value, columns: int, layout: Layout) -> Value:
    """RMSNorm, times the gate's activation in FP32."""
    if layout.fused:
        return graph.call("windtunnel.fused", x.elements, x.width, [x, gate], saves=(x, gate))
    normed = parts.rms_norm(graph, x, columns, layout)
    wide = parts.cast(graph, gate, parts.WIDE)
    opened = parts.unary(graph, "aten.silu", wide)
    product = graph.call(
        "aten.mul", x.elements, parts.WIDE, [normed, opened], saves=(normed, opened), before=(opened.nbytes,)
    )
    return parts.cast(graph, product, x.width)


def _by_kept_bytes(graph: Graph, x: Value, mixer: Compressed | Mamba, code: LayerCode) -> Value:
    """A mixer that no recipe writes down: what it keeps in all, by count."""
    layout, hidden = code.layout, code.model.hidden
    if isinstance(mixer, Compressed):
        queries = mixer.heads * mixer.head_dim
        split = 4 * queries + 4 * mixer.heads
        each = 4 * mixer.query_rank + 4 * mixer.head_dim + split / layout.tensor
    else:
        each = (4 * mixer.channels + 6 * mixer.inner + 8 * mixer.heads) / layout.tensor
    held = graph.constant(int(layout.tokens * each), "mixer")
    weights = mixer.parameters(hidden) // layout.tensor * x.width
    return graph.call("mixer", x.elements, x.width, [x], saves=(x, held), weights=(weights,))


def rotary_table_bytes(layout: Layout, dims: int) -> Sequence[int]:
    """Cosines and sines of transformers, made once a step for all layers; others gather theirs in each layer."""
    if layout.fused or layout.eager is not EagerCode.TRANSFORMERS:
        return ()
    length = layout.sequence // layout.context
    return (length * dims * parts.width_of(layout),) * 2
