"""Seconds of a collective on a cluster: the one entry of this package.

Chooses the models by where the group sits: inside one node (switch, mesh or PCIe), between nodes (one network
card each), or both, in which case the parts overlap and the slower one rules. MoE dispatch and combine have
their own model. Times are those of a collective alone on its links; ``demands`` says what it asks of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from windtunnel.estimate import Estimate
from windtunnel.network import contention, tiers
from windtunnel.network.collective import POINT_TO_POINT, Collective, kind_of, message_bytes
from windtunnel.network.contention import Demand
from windtunnel.network.engine import Engine
from windtunnel.network.expert import ExpertTraffic
from windtunnel.network.links import Links
from windtunnel.network.overlap import sm_share
from windtunnel.network.parameters import pcie_parameters
from windtunnel.network.time import FREE, NetworkTime
from windtunnel.network.topology import GroupShape, shape_of
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup
from windtunnel.program.work import Work
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.schema import ScaleUp

BARRIER_BYTES = 4.0


class NetworkModel:
    """Times of collectives on one cluster. Results are kept: a program repeats few distinct ones."""

    def __init__(self, cluster: Cluster | Links) -> None:
        self.links = cluster if isinstance(cluster, Links) else Links.of(cluster)
        self._shape = lru_cache(maxsize=4096)(self._shape_of)
        self._cached = lru_cache(maxsize=65536)(self._time)

    def _shape_of(self, ranks: tuple[int, ...]) -> GroupShape:
        links = self.links
        socket = (
            pcie_parameters().cards_per_socket if links.scale_up is ScaleUp.PCIE else links.cards_per_node
        )
        return shape_of(ranks, links.cards_per_node, links.nodes_per_pod, links.cards, socket)

    def shape(self, ranks: tuple[int, ...]) -> GroupShape:
        """Where a group sits. Raises E201 for ranks outside the cluster."""
        return self._shape(ranks)

    def collective_time(
        self,
        kind: Collective,
        nbytes: float,
        ranks: tuple[int, ...],
        *,
        engine: Engine | None = None,
        traffic: ExpertTraffic | None = None,
    ) -> NetworkTime:
        """Seconds of one collective.

        Args:
            nbytes: size as ``collective.py`` counts it. Ignored for dispatch and combine with ``traffic``.
            ranks: the group in the cluster's numbering; sender and receiver for point to point.
            engine: whose all-reduce inside a node; the library's where it has none of its own for the size.
        """
        return self.shaped_time(kind, nbytes, self._shape(ranks), engine=engine, traffic=traffic)

    def shaped_time(
        self,
        kind: Collective,
        nbytes: float,
        shape: GroupShape,
        *,
        engine: Engine | None = None,
        traffic: ExpertTraffic | None = None,
    ) -> NetworkTime:
        """The same for a group known by its shape: recipes need no lists of ten thousand ranks."""
        return self._cached(kind, float(nbytes), shape, engine, traffic)

    def estimate(self, spec: OpSpec, work: Work, group: ProcessGroup) -> Estimate:
        """The time of a recorded collective (``timeline.prices.CollectiveTime``)."""
        return self.recorded_time(spec, group).estimate()

    def recorded_time(self, spec: OpSpec, group: ProcessGroup, rank: int | None = None) -> NetworkTime:
        """The time of a recorded collective; ``rank``: the recording rank, for point to point."""
        kind = kind_of(spec.name)
        ranks = spoken_to(spec, group, rank)
        return self.collective_time(kind, message_bytes(spec), ranks, traffic=traffic_of(spec, kind))

    def demands(self, spec: OpSpec, group: ProcessGroup, rank: int) -> tuple[Demand, ...]:
        """What a recorded collective asks of the links of ``rank``, and for what share of them."""
        kind, ranks = kind_of(spec.name), spoken_to(spec, group, rank)
        time = self.recorded_time(spec, group, rank)
        return contention.demands(kind, time, self._shape(ranks), ranks, rank, self.links)

    def _time(
        self,
        kind: Collective,
        nbytes: float,
        shape: GroupShape,
        engine: Engine | None,
        traffic: ExpertTraffic | None,
    ) -> NetworkTime:
        if shape.ranks <= 1 or (nbytes <= 0 and kind is not Collective.BARRIER and traffic is None):
            return FREE
        links = self.links
        if kind in (Collective.DISPATCH, Collective.COMBINE) and traffic is not None:
            return tiers.expert(links, kind, shape, traffic)
        if kind is Collective.BARRIER:
            kind, nbytes = Collective.ALL_REDUCE, BARRIER_BYTES
        elif kind in (Collective.DISPATCH, Collective.COMBINE):
            kind = Collective.ALL_TO_ALL
        inside = tiers.inside(links, kind, nbytes, shape, engine) if shape.per_node > 1 else None
        if shape.nodes == 1:
            assert inside is not None
            return inside
        between = tiers.between(links, kind, nbytes, shape)
        slower = between if inside is None or between.seconds >= inside.seconds else inside
        return replace(
            slower,
            sm_share=sm_share(kind, shape.nodes, links.chip),
            link_busy=inside.link_busy * inside.seconds / slower.seconds if inside is not None else 0.0,
            nic_busy=between.nic_busy * between.seconds / slower.seconds,
        )


def spoken_to(spec: OpSpec, group: ProcessGroup, rank: int | None) -> tuple[int, ...]:
    """The ranks that a recorded collective runs over: its group, or both ends of a transfer."""
    if kind_of(spec.name) not in POINT_TO_POINT:
        return group.ranks
    return pair_of(rank if rank is not None else group.ranks[0], spec.attribute("peer", -1), group)


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
    experts = spec.attribute("experts", 0)
    limit, imbalance = spec.attribute("node_limit", 0), spec.attribute("imbalance", 1.0)
    groups, chosen = spec.attribute("groups", 0), spec.attribute("groups_chosen", 0)
    nodes = spec.attribute("node_imbalance", 0.0)
    as_of, sms = spec.attribute("as_of", ""), spec.attribute("sms", 0)
    return ExpertTraffic(
        tokens=tokens,
        token_bytes=width,
        top_k=top_k,
        node_limit=limit if isinstance(limit, int) else 0,
        groups=groups if isinstance(groups, int) else 0,
        groups_chosen=chosen if isinstance(chosen, int) else 0,
        experts=experts if isinstance(experts, int) else 0,
        low_latency=spec.attribute("low_latency", False) is True,
        sms=sms if isinstance(sms, int) else 0,
        tma=spec.attribute("tma", False) is True,
        imbalance=float(imbalance) if isinstance(imbalance, (int, float)) else 1.0,
        node_imbalance=float(nodes) if isinstance(nodes, (int, float)) else 0.0,
        as_of=as_of if isinstance(as_of, str) else "",
    )
