"""Feed-forward layers: dense, and mixtures of experts with their dispatch, by what they allocate."""

from __future__ import annotations

from windtunnel.recipes.layout import EagerCode, Layout
from windtunnel.recipes.memory import parts
from windtunnel.recipes.memory.graph import Graph, Value
from windtunnel.recipes.memory.parts import WIDE
from windtunnel.specs.model_ffn import Dense, Moe


def dense(graph: Graph, x: Value, ffn: Dense, hidden: int, layout: Layout) -> Value:
    """Up (and gate), activation, down."""
    width = max(1, ffn.width // layout.tensor)
    joined = parts.by_megatron(layout) or (layout.fused and not parts.products_apart(layout))
    if joined or not ffn.gated:
        x = parts.entered(graph, x, layout)
        up = parts.column(graph, x, hidden, width * (2 if ffn.gated else 1), layout, bias=ffn.bias)
        if ffn.gated and not layout.fused:
            inner = _gate_and_up(graph, up, layout.tokens * width, offset=True)
        else:
            inner = _activation(graph, up, layout.tokens * width, layout)
        del up
    else:
        x = parts.gathered(graph, x, layout)
        gate = parts.linear(graph, x, hidden, width)
        if layout.fused:
            up = parts.linear(graph, x, hidden, width)
            del x
            inner = graph.call("windtunnel.swiglu", gate.elements, gate.width, [gate, up], saves=(gate, up))
            del gate, up
        else:
            opened = parts.unary(graph, "aten.silu", gate)
            del gate
            up = parts.linear(graph, x, hidden, width)
            inner = parts.multiply(graph, opened, up)
            del opened, up
    # no gradient needs the last product: compiled layers drop it, eager code keeps it all the same
    return parts.row(graph, inner, width, hidden, layout, bias=ffn.bias, needed=not layout.fused)


def _activation(graph: Graph, up: Value, elements: int, layout: Layout) -> Value:
    """SwiGLU or GELU in one kernel; its input may be kept in 8 bits."""
    saved = up
    if layout.fp8_activation_inputs and layout.precision.is_fp8:
        saved = graph.constant(up.elements, "windtunnel.fused")
    return graph.call("windtunnel.swiglu", elements, up.width, [up], saves=(saved,), gradients=(up.nbytes,))


def _gate_and_up(graph: Graph, joined: Value, elements: int, *, offset: bool) -> Value:
    """The activated gate times the rest. ``offset``: Megatron-core adds one to it first, which may be 0."""
    nbytes = elements * joined.width
    joined = graph.view(joined, "aten.cat", joins=True)
    opened = graph.call("aten.silu", elements, joined.width, [joined], saves=(joined,), gradients=(nbytes,))
    rest = parts.sized(joined, elements)
    if offset:
        rest = graph.call("aten.add", elements, joined.width, [rest], gradients=(None,))
    return graph.call(
        "aten.mul", elements, joined.width, [opened, rest], saves=(opened, rest), gradients=(nbytes, nbytes)
    )


def mixture(graph: Graph, x: Value, ffn: Moe, hidden: int, layout: Layout) -> Value:
    """Router, dispatch, experts, combine, and the shared expert."""
    rows = layout.sequence_tokens
    local = max(1, ffn.experts // layout.expert)
    width = max(1, ffn.width // layout.expert_tensor)
    received = max(1, int(rows * ffn.top_k * layout.imbalance * layout.expert_tensor))
    weights = _router(graph, x, ffn, hidden, layout)
    inner = ffn.latent or hidden
    tokens = parts.linear(graph, x, hidden, inner) if ffn.latent else x
    sent = _dispatch(graph, tokens, received, inner, layout)
    del tokens
    if layout.fused or parts.by_megatron(layout) or layout.eager is EagerCode.TRANSFORMERS:
        up = parts.expert_linear(graph, sent, inner, width * (2 if ffn.gated else 1), local, layout)
        del sent
        if layout.fused or not ffn.gated:
            middle = _activation(graph, up, received * width, layout)
        else:
            middle = _gate_and_up(graph, up, received * width, offset=parts.by_megatron(layout))
        del up
        if parts.by_megatron(layout):  # experts weigh their inner results
            middle = graph.call(
                "aten.mul", middle.elements, middle.width, [middle, weights], saves=(middle, weights)
            )
    else:
        gate = parts.expert_linear(graph, sent, inner, width, local, layout)
        opened = parts.unary(graph, "aten.silu", gate)
        del gate
        up = parts.expert_linear(graph, sent, inner, width, local, layout)
        del sent
        middle = parts.multiply(graph, opened, up)
        del opened, up
    result = parts.expert_linear(graph, middle, width, inner, local, layout)
    del middle
    out = _combine(graph, result, weights, rows, inner, ffn, layout)
    del result, weights
    if ffn.latent:
        out = parts.linear(graph, out, inner, hidden)
    if ffn.shared_width:
        shared = dense(graph, x, Dense(width=ffn.shared_width, gated=ffn.gated), hidden, layout)
        out = parts.add(graph, out, shared)
    return out


def _router(graph: Graph, x: Value, ffn: Moe, hidden: int, layout: Layout) -> Value:
    """Weights of the chosen experts."""
    rows = layout.sequence_tokens
    tokens = x
    if ffn.router_fp32 and not layout.fused and layout.eager is EagerCode.TRANSFORMERS:
        tokens = parts.cast(graph, x, WIDE)
    logits = parts.linear(graph, tokens, hidden, ffn.experts, counted=False)
    del tokens
    scores = graph.call("aten._softmax", rows * ffn.experts, WIDE, [logits], saves_result=True)
    del logits
    return graph.call(
        "aten.topk", rows * ffn.top_k, WIDE, [scores], gradients=(scores.nbytes,), before=(scores.nbytes,), keeps=True
    )  # fmt: skip


def _dispatch(graph: Graph, tokens: Value, received: int, width: int, layout: Layout) -> Value:
    """The tokens' copies, in the order of the local experts."""
    copies = received * width
    nbytes = copies * tokens.width
    if parts.by_megatron(layout):
        sent = graph.call("aten.index_select", copies, tokens.width, [tokens], before=(tokens.nbytes,))
        there = graph.call("c10d.alltoall_base_", copies, tokens.width, [sent])
        return graph.call("aten.cat", copies, tokens.width, [there])
    if layout.fused:
        return graph.call("windtunnel.moe_permute", copies, tokens.width, [tokens])
    spread = graph.call(
        "aten.index", copies, tokens.width, [tokens], gradients=(tokens.nbytes,), before=(tokens.nbytes,)
    )
    if layout.expert == 1:
        return spread
    there = graph.call("c10d.all_to_all_single", copies, tokens.width, [spread], keeps=True)
    return graph.call("aten.index", copies, tokens.width, [there], before=(nbytes,))


def _combine(
    graph: Graph, result: Value, weights: Value, rows: int, width: int, ffn: Moe, layout: Layout
) -> Value:
    """Copies brought back, weighed and summed for each token."""
    copies, total = result.elements, rows * width
    if parts.by_megatron(layout):
        for name in ("aten.cat", "aten.cat", "c10d.alltoall_base_"):  # by expert, by sender, back
            result = graph.call(name, copies, result.width, [result])
        return graph.call("aten.scatter_add_", total, result.width, [result])
    if layout.fused:
        return graph.call(
            "windtunnel.moe_unpermute", total, result.width, [result, weights], saves=(result, weights)
        )
    if layout.eager is EagerCode.TRANSFORMERS:
        summed_width = WIDE if ffn.weights_fp32 else result.width
        back = (copies * summed_width,) if summed_width == result.width else (copies * summed_width,) * 2
        weighed = graph.call(
            "aten.mul", copies, summed_width, [result, weights], saves=(result, weights), before=back
        )
        ordered = graph.call("aten.index", copies, summed_width, [weighed], before=(copies * summed_width,))
        del weighed
        summed = graph.call("aten.sum", total, summed_width, [ordered], gradients=(copies * summed_width,))
        return summed if summed_width == result.width else parts.cast(graph, summed, result.width)
    if layout.expert > 1:
        # put back into the order of arrival, and returned
        left = graph.call("aten.index_put_", copies, result.width, [result])
        result = graph.call("c10d.all_to_all_single", copies, result.width, [left], keeps=True)
        del left
    target = graph.constant(total * result.width, "aten.zeros_like")
    wide = parts.cast(graph, result, WIDE)
    weighed = graph.call(
        "aten.mul", copies, WIDE, [wide, weights], saves=(wide, weights), before=(copies * WIDE,)
    )
    del wide
    narrow = parts.cast(graph, weighed, result.width)
    del weighed, result
    summed = graph.call("aten.scatter_add", total, narrow.width, [narrow])
    del target
    return summed
