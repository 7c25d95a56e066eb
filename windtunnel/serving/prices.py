"""Seconds of lists of operations on one card of a cluster, added up: what a captured graph of them takes.

Kernels run one after another on one stream, collectives between them. The host's time is summed apart: without
graphs a step takes the longer of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.cost.model import CostModel
from windtunnel.estimate import Source
from windtunnel.network.collective import Collective, kind_of, message_bytes
from windtunnel.network.model import NetworkModel, traffic_of
from windtunnel.network.time import NetworkTime
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup
from windtunnel.program.work import Family
from windtunnel.specs.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Seconds:
    """Device and host seconds, with the device's 80 % interval. They add.

    ``network`` is the part of ``device`` on the wire; ``held``: seconds of the whole card's multiprocessors
    that communication holds meanwhile.
    """

    device: float = 0.0
    host: float = 0.0
    low: float = 0.0
    high: float = 0.0
    network: float = 0.0
    held: float = 0.0

    def plus(self, other: Seconds, times: float = 1.0) -> Seconds:
        """This and ``times`` the other."""
        return Seconds(
            self.device + times * other.device,
            self.host + times * other.host,
            self.low + times * other.low,
            self.high + times * other.high,
            self.network + times * other.network,
            self.held + times * other.held,
        )


class OpPrices:
    """Prices of operations on ``cluster``, each distinct one priced once."""

    def __init__(self, cluster: Cluster, groups: Sequence[ProcessGroup]) -> None:
        self.cost = CostModel(cluster.chip)
        self.network = NetworkModel(cluster)
        self.groups = tuple(groups)
        self.sources: dict[Source, float] = {}
        self._known: dict[OpSpec, Seconds] = {}

    def total(self, ops: Sequence[OpSpec]) -> Seconds:
        """All of them, one after another. Raises E501 for a precision that the chip lacks."""
        new = [spec for spec in dict.fromkeys(ops) if spec not in self._known]
        works = [work_of(spec) for spec in new]
        for spec, work, time in zip(new, works, self.cost.kernel_times(works), strict=True):
            host = self.cost.host_time_s(work)
            if work.family is Family.COLLECTIVE:
                wire = self._collective(spec)
                held = wire.seconds * wire.sm_share
                self._known[spec] = Seconds(wire.seconds, host, wire.low_s, wire.high_s, wire.seconds, held)
                self._note(wire.source, wire.seconds)
            else:
                self._known[spec] = Seconds(time.seconds, host, time.low_s, time.high_s)
                self._note(time.source, time.seconds)
        result = Seconds()
        for spec in ops:
            result = result.plus(self._known[spec])
        return result

    def _note(self, source: Source, seconds: float) -> None:
        self.sources[source] = self.sources.get(source, 0.0) + seconds

    def _collective(self, spec: OpSpec) -> NetworkTime:
        number = spec.attribute("group", 0)
        group = self.groups[number if isinstance(number, int) else 0]
        kind = kind_of(spec.name)
        nbytes, traffic = message_bytes(spec), traffic_of(spec, kind)
        library = self.network.collective_time(kind, nbytes, group.ranks, traffic=traffic)
        if kind is not Collective.ALL_REDUCE or self.network.shape(group.ranks).nodes > 1:
            return library
        # engines take their own all-reduce inside a node where it is faster than the library's
        own = self.network.collective_time(kind, nbytes, group.ranks, custom=True)
        return own if own.seconds < library.seconds else library
