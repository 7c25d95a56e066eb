"""Seconds of a model's layers for one batch on one rank: layers of equal shape are priced once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from windtunnel.network.collective import Collective
from windtunnel.network.overlap import sm_share
from windtunnel.program.op import OpSpec
from windtunnel.recipes.architecture import Architecture, GroupedQuery, Latent, LayerShape, MoeFfn
from windtunnel.recipes.layers.cached import Batch, delta_core, latent_core, softmax_core
from windtunnel.recipes.serving import forward_step
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.overlap import Turns, turns
from windtunnel.serving.prices import OpPrices, Seconds
from windtunnel.specs.cluster import Cluster


class LayerPrices:
    """``overlap``: half-batches take turns, so that exchanges hold multiprocessors beside products."""

    def __init__(
        self, model: Architecture, layout: ServingLayout, cluster: Cluster, overlap: bool, stack: Stack
    ) -> None:
        self.model, self.layout, self.overlap = model, layout, overlap
        self._kinds = _kinds(model, layout)
        probe = forward_step(replace(model, layers=()), layout, [Batch(sequences=1)])
        self.prices = OpPrices(cluster, probe.groups, stack, layout.fused_sums)
        self._beside = self.prices
        if overlap and layout.data > 1:
            held = sm_share(Collective.DISPATCH, 1, cluster.chip, layout.exchange_sms)
            self._beside = OpPrices(cluster, probe.groups, stack, layout.fused_sums, held)

    def exact(self, batches: Sequence[Batch]) -> Seconds:
        """A step priced from its whole program, without points and lines, layers alike: for tests and explanations."""
        program = forward_step(self.model, self.layout, batches)
        ops = [program.specs[program.site(event).spec] for event in program.events.tolist()]
        return self.prices.total(ops)

    def priced(self, batch: Batch) -> Seconds:
        """A step of one batch as a sum of its parts, with their intervals: layers of one shape priced once."""
        total = self.layers(batch)
        head = self._ops(replace(self.model, layers=()), Batch(sequences=batch.sequences))
        return total.plus(self.prices.total(head))

    def layers(self, batch: Batch) -> Seconds:
        """All layers, attention included."""
        total = self.dense(batch)
        for shape, _, count in self._kinds:
            total = total.plus(self.prices.total(self._core(shape, batch)), count)
        return total

    def turns(self, batch: Batch) -> tuple[Turns, ...]:
        """The turns of the layers that exchange tokens, each of the layout's parts of them apart.

        Low-latency exchanges hold no multiprocessors while tokens travel: engines leave products all of them.
        """
        return self._turns(batch, self.prices if batch.decodes else self._beside)

    def turns_alone(self, batch: Batch) -> tuple[Turns, ...]:
        """The same with all multiprocessors left to products."""
        return self._turns(batch, self.prices)

    def _turns(self, batch: Batch, prices: OpPrices) -> tuple[Turns, ...]:
        around = self._ops(replace(self.model, layers=()), batch)
        found = {layout: Turns() for layout in self.layout.of_parts()}
        for shape, layout, count in self._kinds:
            if layout in found:  # else without experts
                ops = self._ops(replace(self.model, layers=(shape,)), batch, layout)
                found[layout] = found[layout].plus(
                    turns(ops, self._core(shape, batch), around, prices), count
                )
        return tuple(found.values())

    def dense(self, batch: Batch) -> Seconds:
        """All layers without their attention cores."""
        total = Seconds()
        for shape, layout, count in self._kinds:
            total = total.plus(self._layer(shape, batch, layout), count)
        return total

    def _layer(self, shape: LayerShape, batch: Batch, layout: ServingLayout | None = None) -> Seconds:
        """One layer without its attention core."""
        one = self._ops(replace(self.model, layers=(shape,)), batch, layout)
        none = self._ops(replace(self.model, layers=()), batch)
        core = self._core(shape, batch)
        total = self.prices.total(one).plus(self.prices.total(none), -1.0)
        return total.plus(self.prices.total(core), -1.0)

    def _cores_s(self, batch: Batch) -> float:
        total = Seconds()
        for shape, _, count in self._kinds:
            total = total.plus(self.prices.total(self._core(shape, batch)), count)
        return self._seconds(total)

    def _core(self, shape: LayerShape, batch: Batch) -> list[OpSpec]:
        dtype, ways = self.layout.precision.activation, self.layout.tensor
        if isinstance(shape.mixer, GroupedQuery):
            return softmax_core(shape.mixer, ways, batch, dtype, self.layout.cache)
        if isinstance(shape.mixer, Latent):
            return latent_core(shape.mixer, ways, batch, dtype, self.layout.cache)
        return [] if shape.mixer is None else delta_core(shape.mixer, ways, batch, dtype)

    def _ops(self, model: Architecture, batch: Batch, layout: ServingLayout | None = None) -> list[OpSpec]:
        program = forward_step(model, replace(layout or self.layout, graphs=False), [batch])
        return [program.specs[program.site(event).spec] for event in program.events.tolist()]

    def _seconds(self, total: Seconds) -> float:
        return total.device if self.layout.graphs else max(total.device, total.host)


def _kinds(model: Architecture, layout: ServingLayout) -> list[tuple[LayerShape, ServingLayout, float]]:
    """Layers that cost the same, and how many: of one shape, and where they hold experts of one part of them."""
    found: list[tuple[LayerShape, ServingLayout, float]] = []
    for shape, count in Counter(model.layers).items():
        layouts = layout.of_parts() if isinstance(shape.ffn, MoeFfn) else [layout]
        found += [(shape, one, count / len(layouts)) for one in layouts]
    return found
