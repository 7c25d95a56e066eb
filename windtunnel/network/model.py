"""Seconds of a collective on a cluster: the one entry of this package.

Chooses the models by where the group sits: inside one node (switch, mesh or PCIe), between nodes (one network
card each), or both, in which case the parts overlap and the slower one rules. MoE dispatch and combine have
their own model. Groups that share links are the caller's business (``sharing``); the timeline does that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from windtunnel.estimate import Estimate, Source
from windtunnel.network.collective import POINT_TO_POINT, Collective, kind_of, message_bytes
from windtunnel.network.expert import ExpertTraffic, expert_s
from windtunnel.network.fabric import fabric_s
from windtunnel.network.links import Links
from windtunnel.network.mesh import mesh_s
from windtunnel.network.overlap import sm_share
from windtunnel.network.parameters import (
    Interval,
    expert_parameters,
    fabric_parameters,
    mesh_parameters,
    pcie_parameters,
    switch_parameters,
)
from windtunnel.network.pcie import pcie_s
from windtunnel.network.switch import custom_all_reduce_s, switch_s
from windtunnel.network.topology import GroupShape, shape_of
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup
from windtunnel.program.work import Work
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.schema import ScaleUp

BARRIER_BYTES = 4.0
MEASURED_NODES = 4
"""Published all-reduce points reach four nodes; beyond, intervals widen."""
UNMEASURED_WIDENING = 1.25
"""Factor on either side of the interval where no point stands near (more nodes, S5000 between nodes)."""


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """One collective, alone on its links unless ``sharing`` was given.

    Attributes:
        low_s, high_s: 80 % interval. limit: ``latency``, ``links`` or ``nic``.
        sm_share: fraction of the chip's multiprocessors held meanwhile.
        algorithm: as the library would call it. formula: the arithmetic in words.
    """

    seconds: float
    low_s: float
    high_s: float
    source: Source
    limit: str
    formula: str
    algorithm: str = ""
    sm_share: float = 0.0

    def estimate(self) -> Estimate:
        """The same as an estimate."""
        return Estimate(self.seconds, self.low_s, self.high_s, ((self.source, 1.0),))


_FREE = NetworkTime(0.0, 0.0, 0.0, Source.ANALYTIC, "latency", "one rank")


class NetworkModel:
    """Times of collectives on one cluster. Results are kept: a program repeats few distinct ones."""

    def __init__(self, cluster: Cluster | Links) -> None:
        self.links = cluster if isinstance(cluster, Links) else Links.of(cluster)
        self._shape = lru_cache(maxsize=4096)(self._shape_of)
        self._cached = lru_cache(maxsize=65536)(self._time)

    def _shape_of(self, ranks: tuple[int, ...]) -> GroupShape:
        links = self.links
        return shape_of(ranks, links.cards_per_node, links.nodes_per_pod, links.cards)

    def shape(self, ranks: tuple[int, ...]) -> GroupShape:
        """Where a group sits. Raises E201 for ranks outside the cluster."""
        return self._shape(ranks)

    def collective_time(
        self,
        kind: Collective,
        nbytes: float,
        ranks: tuple[int, ...],
        *,
        sharing: float = 1.0,
        custom: bool = False,
        traffic: ExpertTraffic | None = None,
    ) -> NetworkTime:
        """Seconds of one collective.

        Args:
            nbytes: size as ``collective.py`` counts it. Ignored for dispatch and combine with ``traffic``.
            ranks: the group in the cluster's numbering; sender and receiver for point to point.
            sharing: how many such groups use the same links at once.
            custom: the inference engines' own all-reduce inside a node instead of the library's.
        """
        return self.shaped_time(
            kind, nbytes, self._shape(ranks), sharing=sharing, custom=custom, traffic=traffic
        )

    def shaped_time(
        self,
        kind: Collective,
        nbytes: float,
        shape: GroupShape,
        *,
        sharing: float = 1.0,
        custom: bool = False,
        traffic: ExpertTraffic | None = None,
    ) -> NetworkTime:
        """The same for a group known by its shape: recipes need no lists of ten thousand ranks."""
        return self._cached(kind, float(nbytes), shape, sharing, custom, traffic)

    def estimate(self, spec: OpSpec, work: Work, group: ProcessGroup) -> Estimate:
        """The time of a recorded collective (``timeline.prices.CollectiveTime``)."""
        return self.recorded_time(spec, group).estimate()

    def recorded_time(self, spec: OpSpec, group: ProcessGroup, rank: int | None = None) -> NetworkTime:
        """The time of a recorded collective; ``rank``: the recording rank, for point to point."""
        kind = kind_of(spec.name)
        ranks = group.ranks
        if kind in POINT_TO_POINT:
            peer = spec.attribute("peer", -1)
            ranks = pair_of(rank if rank is not None else ranks[0], peer, group)
        return self.collective_time(kind, message_bytes(spec), ranks, traffic=traffic_of(spec, kind))

    def _time(
        self,
        kind: Collective,
        nbytes: float,
        shape: GroupShape,
        sharing: float,
        custom: bool,
        traffic: ExpertTraffic | None,
    ) -> NetworkTime:
        if shape.ranks <= 1 or (nbytes <= 0 and kind is not Collective.BARRIER and traffic is None):
            return _FREE
        links = self.links
        if sharing > 1:
            links = replace(
                links,
                link_bytes_per_s=links.link_bytes_per_s / sharing,
                pcie_bytes_per_s=links.pcie_bytes_per_s / sharing,
                nic_bytes_per_s=links.nic_bytes_per_s / sharing,
            )
        if kind in (Collective.DISPATCH, Collective.COMBINE) and traffic is not None:
            return _expert(links, kind, shape, traffic)
        if kind is Collective.BARRIER:
            kind, nbytes = Collective.ALL_REDUCE, BARRIER_BYTES
        elif kind in (Collective.DISPATCH, Collective.COMBINE):
            kind = Collective.ALL_TO_ALL
        inside = _inside(links, kind, nbytes, shape, custom) if shape.per_node > 1 else None
        if shape.nodes == 1:
            assert inside is not None
            return inside
        between = _between(links, kind, nbytes, shape)
        slower = between if inside is None or between.seconds >= inside.seconds else inside
        return replace(slower, sm_share=sm_share(kind, shape.nodes, links.chip))


def pair_of(rank: int, peer: object, group: ProcessGroup) -> tuple[int, ...]:
    """Both ends of a point-to-point operation, in the cluster's numbering."""
    other = peer if isinstance(peer, int) and peer >= 0 else next(r for r in group.ranks if r != rank)
    return (rank, other) if rank != other else (rank,)


def traffic_of(spec: OpSpec, kind: Collective) -> ExpertTraffic | None:
    """Dispatch and combine say how many tokens of what size go to how many experts."""
    tokens, top_k = spec.attribute("tokens"), spec.attribute("top_k")
    width = spec.attribute("token_bytes")
    if kind not in (Collective.DISPATCH, Collective.COMBINE):
        return None
    if not (isinstance(tokens, int) and isinstance(top_k, int) and isinstance(width, int)):
        return None
    limit, imbalance = spec.attribute("node_limit", 0), spec.attribute("imbalance", 1.0)
    return ExpertTraffic(
        tokens=tokens,
        token_bytes=width,
        top_k=top_k,
        node_limit=limit if isinstance(limit, int) else 0,
        low_latency=spec.attribute("low_latency", False) is True,
        tma=spec.attribute("tma", False) is True,
        imbalance=float(imbalance) if isinstance(imbalance, (int, float)) else 1.0,
    )


def _priced(
    seconds: float, interval: Interval, nbytes: float, source: Source, widening: float, *texts: str
) -> NetworkTime:
    low, high = interval.at(nbytes)
    algorithm, limit, formula = texts
    return NetworkTime(
        seconds,
        seconds * min(1.0, low / widening),
        seconds * max(1.0, high * widening),
        source,
        limit,
        formula,
        algorithm,
    )


def _limit(nbytes: float, seconds: float, rate: float, name: str) -> str:
    return name if nbytes / rate > 0.25 * seconds else "latency"


def _inside(links: Links, kind: Collective, nbytes: float, shape: GroupShape, custom: bool) -> NetworkTime:
    """The part inside the nodes; of a larger group, its ranks in one node carry the whole ring's traffic."""
    ranks = shape.ranks if shape.nodes == 1 else shape.per_node
    if shape.nodes > 1 and kind is Collective.ALL_TO_ALL:
        nbytes = nbytes * shape.per_node / shape.ranks
    share = sm_share(kind, shape.nodes, links.chip)
    if links.scale_up is ScaleUp.MESH:
        mesh = mesh_parameters()
        seconds, algorithm = mesh_s(kind, nbytes, ranks, links.pair_bytes_per_s, mesh)
        known = links.chip.name.startswith("mtt-s5000") and seconds > 2 * mesh.small_launch_s
        source = Source.CALIBRATED if known else Source.ANALYTIC
        widening = 1.0 if known else UNMEASURED_WIDENING
        formula = "launch + (sqrt(fill) + sqrt(rounds S/N / pair rate))^2"
        limit = _limit(nbytes / ranks, seconds, links.pair_bytes_per_s, "links")
        return _priced(seconds, mesh.interval, nbytes, source, widening, algorithm, limit, formula)
    if links.scale_up is ScaleUp.PCIE:
        pcie = pcie_parameters()
        seconds, algorithm = pcie_s(kind, nbytes, ranks, links.pcie_bytes_per_s, pcie)
        limit = _limit(nbytes, seconds, links.pcie_bytes_per_s, "links")
        formula = "launch + (sqrt(hops) + sqrt(f S / slot rate))^2"
        return _priced(seconds, pcie.interval, nbytes, Source.ANALYTIC, 1.0, algorithm, limit, formula)
    switch = switch_parameters()
    rate = links.link_bytes_per_s
    fitted = links.chip.name in switch.fitted_chips
    source = Source.CALIBRATED if fitted else Source.ANALYTIC
    interval = switch.interval if fitted else switch.interval_transfer
    if custom and kind is Collective.ALL_REDUCE:
        seconds, algorithm = custom_all_reduce_s(nbytes, ranks, rate, switch)
        interval = switch.interval_custom
    else:
        seconds, algorithm = switch_s(
            kind, nbytes, ranks, rate, links.chip.name, links.switch_generation, switch
        )
    limit = _limit(nbytes, seconds, rate, "links")
    formula = "launch + min over protocols of hops and (f S + local S/N) / link rate"
    time = _priced(seconds, interval, nbytes, source, 1.0, algorithm, limit, formula)
    return replace(time, sm_share=share)


def _between(links: Links, kind: Collective, nbytes: float, shape: GroupShape) -> NetworkTime:
    fabric = fabric_parameters()
    rate = links.nic_bytes_per_s
    if shape.pods > 1:
        rate /= links.oversubscription
    seconds, algorithm = fabric_s(kind, nbytes, shape, rate, fabric)
    known = shape.nodes <= MEASURED_NODES and links.scale_up is ScaleUp.SWITCH
    limit = _limit(nbytes / shape.per_node, seconds, rate, "nic")
    formula = "launch + (sqrt(hops) + sqrt(f S / (ranks in node x NIC rate)))^2"
    return _priced(
        seconds,
        fabric.interval,
        nbytes,
        Source.CALIBRATED if known else Source.ANALYTIC,
        1.0 if known else UNMEASURED_WIDENING,
        algorithm,
        limit,
        formula,
    )


def _expert(links: Links, kind: Collective, shape: GroupShape, traffic: ExpertTraffic) -> NetworkTime:
    expert = expert_parameters()
    occupies = sm_share(kind, shape.nodes, links.chip) > 0
    rate = links.link_bytes_per_s
    if links.scale_up is ScaleUp.PCIE:
        rate = links.pcie_bytes_per_s
    elif links.scale_up is ScaleUp.MESH:
        # what a group cannot reach through the pairs it lacks; a whole node uses all of them
        rate = links.pair_bytes_per_s * max(1, min(shape.ranks, links.cards_per_node) - 1)
    nic = links.nic_bytes_per_s / (links.oversubscription if shape.pods > 1 else 1.0)
    seconds, algorithm = expert_s(traffic, shape, rate, max(nic, 1.0), occupies, expert)
    known = links.scale_up is ScaleUp.SWITCH and shape.nodes <= 32
    nbytes = traffic.tokens * traffic.token_bytes
    time = _priced(
        seconds,
        expert.interval,
        nbytes,
        Source.CALIBRATED if known else Source.ANALYTIC,
        1.0 if known else UNMEASURED_WIDENING,
        algorithm,
        "nic" if algorithm.endswith("nic") else "links",
        "launch + max(links, NIC) of the distinct copies of each token",
    )
    return replace(time, sm_share=sm_share(kind, shape.nodes, links.chip, traffic.sms))
