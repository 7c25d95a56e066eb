"""Seconds of lists of operations on one card of a cluster, added up: what a captured graph of them takes.

Kernels run one after another on one stream, collectives between them. The host's time is summed apart: without
graphs a step takes the longer of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from windtunnel.cost.kernel_time import KernelTime
from windtunnel.cost.model import CostModel, Settings
from windtunnel.estimate import Source
from windtunnel.network.collective import Collective, kind_of, message_bytes
from windtunnel.network.engine import Engine
from windtunnel.network.expert import memory_bytes as exchanged_bytes
from windtunnel.network.model import NetworkModel, traffic_of
from windtunnel.network.time import NetworkTime
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup
from windtunnel.program.work import Family, Work
from windtunnel.serving.host_time import engine_host
from windtunnel.serving.kernel_library import Stack, library_of
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.schema import Chip


@dataclass(frozen=True, slots=True)
class Seconds:
    """Device seconds, those of the engine's host to issue it all, and the device's 80 % interval. They add.

    ``network`` is the part of ``device`` on the wire; ``held``: seconds of the whole card's multiprocessors
    and memory that communication takes from kernels that run beside it, ``units`` those of multiprocessors alone.
    ``given``: the part of ``device`` in products that leave communication its multiprocessors.
    """

    device: float = 0.0
    host: float = 0.0
    low: float = 0.0
    high: float = 0.0
    network: float = 0.0
    held: float = 0.0
    units: float = 0.0
    given: float = 0.0

    def plus(self, other: Seconds, times: float = 1.0) -> Seconds:
        """This and ``times`` the other."""
        return Seconds(
            self.device + times * other.device,
            self.host + times * other.host,
            self.low + times * other.low,
            self.high + times * other.high,
            self.network + times * other.network,
            self.held + times * other.held,
            self.units + times * other.units,
            self.given + times * other.given,
        )


class OpPrices:
    """Prices of operations on ``cluster`` with the kernels of ``stack``, each distinct one priced once.

    ``fused_sums``: an all-reduce behind a product hides under it, or the product under it. ``beside``: share of the
    multiprocessors that an engine keeps its own products off for as long as it overlaps half-batches, exchange or not
    (DeepGEMM's ``set_num_sms``: SGLang's ``operations_strategy.py``, vLLM's ``SMControlContextManager``).
    """

    def __init__(
        self, cluster: Cluster, groups: Sequence[ProcessGroup], stack: Stack = Stack.VLLM,
        fused_sums: bool = False, beside: float = 0.0,
    ) -> None:  # fmt: skip
        self.fused_sums = fused_sums
        self.cost = CostModel(cluster.chip, Settings(sustained=True))
        self.stack = stack
        self._left = thinner(cluster.chip, beside) if beside else cluster.chip
        self._models: dict[tuple[str, bool], CostModel] = {("", False): self.cost}
        self.network = NetworkModel(cluster)
        self.groups = tuple(groups)
        self.sources: dict[Source, float] = {}
        self._known: dict[OpSpec, Seconds] = {}

    def total(self, ops: Sequence[OpSpec]) -> Seconds:
        """All of them, one after another. Raises E501 for a precision that the chip lacks."""
        new = [spec for spec in dict.fromkeys(ops) if spec not in self._known]
        works = [work_of(spec) for spec in new]
        for spec, work, time in zip(new, works, self._times(works), strict=True):
            host = engine_host(self.cost.chip) * self.cost.host_time_s(work)
            if work.family is Family.COLLECTIVE:
                wire = self._collective(spec)
                units = wire.seconds * wire.sm_share
                held = units + self._memory_s(spec)
                self._known[spec] = Seconds(
                    wire.seconds, host, wire.low_s, wire.high_s, wire.seconds, held, units
                )
                self._note(wire.source, wire.seconds)
            else:
                given = time.seconds if self._gives(work) else 0.0
                self._known[spec] = Seconds(time.seconds, host, time.low_s, time.high_s, given=given)
                self._note(time.source, time.seconds)
        result = Seconds()
        for spec in ops:
            result = result.plus(self._known[spec])
        if self.fused_sums:
            for first, second in pairwise(ops):
                if _product(first) and _sum(second):
                    result = result.plus(_shorter(self._known[first], self._known[second]), -1.0)
        return result

    def _times(self, works: Sequence[Work]) -> list[KernelTime]:
        chip = self.cost.chip
        names = [(library_of(self.stack, work, chip), self._gives(work)) for work in works]
        found: dict[int, KernelTime] = {}
        for name in dict.fromkeys(names):
            model = self._models.get(name)
            if model is None:
                library, gives = name
                settings = Settings(library=library, sustained=True)
                model = self._models[name] = CostModel(self._left if gives else chip, settings)
            places = [place for place, other in enumerate(names) if other == name]
            found |= dict(zip(places, model.kernel_times([works[p] for p in places]), strict=True))
        return [found[place] for place in range(len(works))]

    def _gives(self, work: Work) -> bool:
        """Whether a kernel is one of DeepGEMM's that runs on fewer multiprocessors."""
        return self._left is not self.cost.chip and work.family in _PRODUCTS and work.variant == "block128"

    def _note(self, source: Source, seconds: float) -> None:
        self.sources[source] = self.sources.get(source, 0.0) + seconds

    def _memory_s(self, spec: OpSpec) -> float:
        """Seconds of the whole device memory that an exchange of tokens takes from kernels beside it."""
        kind = kind_of(spec.name)
        traffic = traffic_of(spec, kind)
        if traffic is None:
            return 0.0
        shape = self.network.shape(self._group(spec).ranks)
        return exchanged_bytes(traffic, shape) / self.cost.chip.memory_bytes_per_s.value

    def _group(self, spec: OpSpec) -> ProcessGroup:
        number = spec.attribute("group", 0)
        return self.groups[number if isinstance(number, int) else 0]

    def _collective(self, spec: OpSpec) -> NetworkTime:
        group, kind = self._group(spec), kind_of(spec.name)
        nbytes, traffic = message_bytes(spec), traffic_of(spec, kind)
        library = self.network.collective_time(kind, nbytes, group.ranks, traffic=traffic)
        if kind is not Collective.ALL_REDUCE or self.network.shape(group.ranks).nodes > 1:
            return library
        # engines take their own all-reduce inside a node where it is faster than the library's
        own = self.network.collective_time(kind, nbytes, group.ranks, engine=Engine(self.stack))
        return own if own.seconds < library.seconds else library


_PRODUCTS = (Family.GEMM, Family.GROUPED_GEMM)


def thinner(chip: Chip, share: float) -> Chip:
    """The chip with ``share`` of its multiprocessors taken away; memory and cache are as fast as before."""
    units, peaks = chip.multiprocessors, chip.peak_flops
    left = round(units.value * (1.0 - share)) / units.value
    return replace(
        chip,
        multiprocessors=replace(units, value=units.value * left),
        peak_flops={name: replace(peak, value=peak.value * left) for name, peak in peaks.items()},
    )


def _product(spec: OpSpec) -> bool:
    return work_of(spec).family is Family.GEMM


def _sum(spec: OpSpec) -> bool:
    return spec.name.startswith("c10d.") and kind_of(spec.name) is Collective.ALL_REDUCE


def _shorter(one: Seconds, other: Seconds) -> Seconds:
    """What of the two hides under the other; the longer one's part on the wire stays."""
    device = min(one.device, other.device)
    return Seconds(
        device,
        0.0,
        min(one.low, other.low),
        min(one.high, other.high),
        min(device, one.network + other.network),
    )
