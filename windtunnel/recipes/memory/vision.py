"""A vision tower's units: patches with their positions, blocks, mergers."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.recipes.layout import Layout
from windtunnel.recipes.memory import parts
from windtunnel.recipes.memory.graph import Code, Graph, Value
from windtunnel.recipes.memory.layers import LayerCode
from windtunnel.specs.model import Layer, ModelSpec, VisionTower
from windtunnel.specs.model_ffn import Dense
from windtunnel.specs.model_mixers import Attention

CORNERS = 4
"""Learned positions between which a patch's own is interpolated."""


def tower_codes(model: ModelSpec, tower: VisionTower, layout: Layout, patches: int) -> dict[str, Code]:
    """Name and code of each FSDP unit, in order; ``patches`` of every sequence. Patches go in, rows come out."""
    seen = replace(
        layout, sequence=patches, context=1, cards=layout.cards // layout.context, expert=1, expert_tensor=1,
        fsdp_shard=0,
    )  # fmt: skip
    rows, width = seen.tokens, parts.width_of(seen)

    def patch(graph: Graph, pixels: Value) -> Value:
        given = parts.cast(graph, pixels, width)
        x = parts.linear(graph, given, tower.patch_elements, tower.hidden, bias=tower.patch_bias)
        del given
        return _with_positions(graph, x, tower) if tower.positions else x

    def merge(graph: Graph, x: Value) -> Value:
        merged = tower.merge * tower.hidden
        out = x
        for number in range(tower.deep_mergers + 1):
            normed = parts.rms_norm(graph, x, tower.hidden if not number else merged, seen, tower.norm)
            up = parts.linear(graph, normed, merged, merged, bias=True)
            del normed
            middle = parts.unary(graph, "aten.gelu", up)
            del up
            out = parts.linear(graph, middle, merged, tower.output, bias=True)
        return out

    whole = replace(model, hidden=tower.hidden, norm=tower.norm, streams=1)
    heads = Attention(
        heads=tower.heads,
        kv_heads=tower.heads,
        head_dim=tower.hidden // tower.heads,
        bias=True,
        output_bias=True,
    )
    layer = Layer(mixer=heads, ffn=Dense(width=tower.ffn, gated=tower.gated, bias=True))
    block: Code = LayerCode(whole, layer, seen)
    if not layout.fused and layout.eager.turns_halves:
        block = TowerBlock(tower, seen, rows)
    return {"patch": patch, **{f"blocks.{i}": block for i in range(tower.layers)}, "merger": merge}


def _with_positions(graph: Graph, x: Value, tower: VisionTower) -> Value:
    """Positions of four corners, weighed in FP32 and summed."""
    corners, wide = CORNERS * x.elements, CORNERS * x.elements * parts.WIDE
    found = graph.call(
        "aten.embedding", corners, x.width, [], weights=(tower.positions * tower.hidden * x.width,)
    )
    weighed = graph.call(
        "aten.mul", corners, parts.WIDE, [found], before=(wide,), gradients=(corners * x.width,)
    )
    del found
    summed = graph.call("aten.sum", x.elements, parts.WIDE, [weighed], gradients=(None,))
    del weighed
    return parts.add(graph, x, parts.cast(graph, summed, x.width))


class TowerBlock:
    """A block as transformers runs it: joint projection, rotary embedding in FP32, attention image by image."""

    def __init__(self, tower: VisionTower, layout: Layout, rows: int) -> None:
        self.tower = tower
        self.layout = layout
        self.rows = rows

    def __call__(self, graph: Graph, x: Value) -> Value:
        """Attention and feed-forward with their residuals."""
        tower, layout = self.tower, self.layout
        y = parts.rms_norm(graph, x, tower.hidden, layout, tower.norm)
        y = self._attention(graph, y)
        x = parts.add(graph, x, y)
        del y
        y = parts.rms_norm(graph, x, tower.hidden, layout, tower.norm)
        y = parts.linear(graph, y, tower.hidden, tower.ffn * (2 if tower.gated else 1), bias=True)
        y = graph.call("aten.gelu", self.rows * tower.ffn, y.width, [y], saves=(y,), gradients=(y.nbytes,))
        y = parts.linear(graph, y, tower.ffn, tower.hidden, bias=True)
        return parts.add(graph, x, y)

    def _attention(self, graph: Graph, x: Value) -> Value:
        tower, hidden = self.tower, self.tower.hidden
        whole = graph.view(parts.linear(graph, x, hidden, 3 * hidden, bias=True), "aten.cat", joins=True)
        del x
        table = graph.constant(self.rows * hidden // tower.heads * parts.WIDE, "aten._to_copy")
        part = parts.sized(whole, self.rows * hidden)
        wide = [parts.cast(graph, part, parts.WIDE) for _ in range(2)]
        turned = parts.rotary(graph, wide, (table, table), self.layout)
        queries, keys = (parts.cast(graph, y, whole.width) for y in turned)
        del wide, turned
        out = parts.attention(graph, queries, keys, part, tower.heads, hidden, self.layout)
        del queries, keys, whole, part, table
        joined = graph.call("aten.cat", out.elements, out.width, [out], gradients=(None,))
        del out
        return parts.linear(graph, joined, hidden, hidden, bias=True)
