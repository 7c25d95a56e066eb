"""Layers without their attention cores by token count: priced at points, straight lines between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.recipes.layers.cached import Batch
from windtunnel.serving.grid import Line
from windtunnel.serving.layer_prices import LayerPrices
from windtunnel.serving.overlap import Turns


@dataclass(frozen=True, slots=True)
class DenseParts:
    """Seconds of computing, on the wire, and by turns of each part of the layers where half-batches overlap, with
    layers ``apart`` from these.
    """

    compute: float
    network: float
    turns: tuple[Turns, ...]
    apart: float


class DenseLayers:
    """Layers without their attention cores by token count, in parts."""

    def __init__(self, layers: LayerPrices, points: Sequence[int], decodes: bool) -> None:
        self._layers, self.decodes = layers, decodes
        self._known: dict[int, DenseParts] = {}
        self._whole: dict[float, float] = {}
        self._line = Line(points, lambda point: 0.0)

    def seconds(self, tokens: float) -> float:
        """All parts, one after another."""
        whole = self._whole.get(tokens)
        if whole is None:
            parts = self.at(tokens)
            whole = self._whole[tokens] = parts.compute + parts.network
        return whole

    def at(self, tokens: float) -> DenseParts:
        """Straight between points."""
        low, high, share = self._line.bracket(tokens)
        a = self._get(low)
        if not share:
            return a
        b, rest = self._get(high), 1 - share
        return DenseParts(
            a.compute * rest + b.compute * share,
            a.network * rest + b.network * share,
            tuple(Turns().plus(x, rest).plus(y, share) for x, y in zip(a.turns, b.turns, strict=True)),
            a.apart * rest + b.apart * share,
        )

    def _get(self, tokens: int) -> DenseParts:
        parts = self._known.get(tokens)
        if parts is None:
            layers = self._layers
            batch = Batch(sequences=tokens, context=1) if self.decodes else Batch(sequences=1, new=tokens)
            total = layers.dense(batch)
            compute = total.device - total.network
            if not layers.layout.graphs:
                compute = max(compute, total.host)
            turns = layers.turns(batch) if layers.overlap else ()
            alone = layers.turns_alone(batch) if layers.overlap else ()
            apart = compute - sum(one.computed for one in alone) if layers.overlap else 0.0
            parts = self._known[tokens] = DenseParts(compute, total.network, turns, apart)
        return parts
