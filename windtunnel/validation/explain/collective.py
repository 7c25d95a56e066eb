"""Why a collective takes as long as predicted: algorithm, formula, links and what each moves, nearest measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from windtunnel.estimate import Source
from windtunnel.network.collective import Collective, bus_factor
from windtunnel.network.engine import Engine
from windtunnel.network.expert import ExpertTraffic
from windtunnel.network.links import Links
from windtunnel.network.model import NetworkModel
from windtunnel.network.topology import GroupShape, shape_of
from windtunnel.specs.cluster import Cluster
from windtunnel.validation.explain.kernel import LEAST_CHANGE, STEP, Input
from windtunnel.validation.explain.points import Near, Point, nearest

_RATES = ("link_bytes_per_s", "pcie_bytes_per_s", "nic_bytes_per_s", "oversubscription")


@dataclass(frozen=True, slots=True)
class CollectiveWhy:
    """One collective, taken apart.

    ``ranges``: ranks, nodes and bytes of the points of this kind on the chip of the nearest one, from and to.
    """

    what: str
    chip: str
    ranks: int
    nodes: int
    message_bytes: float
    seconds: float
    low_s: float
    high_s: float
    source: Source
    limit: str
    algorithm: str
    formula: str
    bus_bytes_per_s: float
    inputs: tuple[Input, ...]
    near: Near | None
    near_predicted_s: float | None
    ranges: tuple[tuple[str, float, float], ...] = ()


def explain_collective(
    kind: Collective, nbytes: float, cluster: Cluster, points: Iterable[Point], library: str = ""
) -> CollectiveWhy:
    """Explain one collective over all cards of ``cluster``."""
    links = Links.of(cluster)
    shape = shape_of(tuple(range(cluster.cards)), links.cards_per_node, links.nodes_per_pod, cluster.cards)
    return explain_shaped(kind, nbytes, links, shape, points, library=library)


def explain_shaped(
    kind: Collective,
    nbytes: float,
    links: Links,
    shape: GroupShape,
    points: Iterable[Point],
    *,
    library: str = "",
    engine: Engine | None = None,
    traffic: ExpertTraffic | None = None,
) -> CollectiveWhy:
    """Explain one collective on a group of known shape."""
    time = NetworkModel(links).shaped_time(kind, nbytes, shape, engine=engine, traffic=traffic)
    dims = (("ranks", float(shape.ranks)), ("nodes", float(shape.nodes)), ("bytes", nbytes))
    name = links.chip.name
    chips = (name, *links.chip.relatives)
    known = [point for point in points if point.family == kind.value and point.chip in chips]
    near = nearest(known, family=kind.value, chips=chips, path="", dims=dims, library=library)
    bus = bus_factor(kind, shape.ranks) * nbytes / time.seconds if time.seconds else 0.0

    def priced(changed: Links) -> float:
        return NetworkModel(changed).shaped_time(kind, nbytes, shape, engine=engine, traffic=traffic).seconds

    near_s = None
    if near is not None and near.point.chip == name and traffic is None and engine is None:
        there = dict(near.point.dims)
        of_point = GroupShape(int(there["ranks"]), int(there["nodes"]), int(there["ranks"] // there["nodes"]))
        wide = replace(links, cards=max(links.cards, of_point.ranks))
        near_s = NetworkModel(wide).shaped_time(kind, there["bytes"], of_point).seconds
    return CollectiveWhy(
        what=kind.value,
        chip=name,
        ranks=shape.ranks,
        nodes=shape.nodes,
        message_bytes=nbytes,
        seconds=time.seconds,
        low_s=time.low_s,
        high_s=time.high_s,
        source=time.source,
        limit=time.limit,
        algorithm=time.algorithm,
        formula=time.formula,
        bus_bytes_per_s=bus,
        inputs=_inputs(links, priced, time.seconds),
        near=near,
        near_predicted_s=near_s,
        ranges=_ranges([point for point in known if near and point.chip == near.point.chip]),
    )


def _ranges(points: Sequence[Point]) -> tuple[tuple[str, float, float], ...]:
    found = []
    for name in ("ranks", "nodes", "bytes"):
        values = [there[name] for point in points if name in (there := dict(point.dims))]
        if values:
            found.append((name, min(values), max(values)))
    return tuple(found)


def _inputs(links: Links, priced: Callable[[Links], float], seconds: float) -> tuple[Input, ...]:
    found = []
    for name in _RATES:
        value: float = getattr(links, name)
        if value <= 0 or seconds <= 0:
            continue
        changed = replace(links, **{name: value * STEP})  # type: ignore[arg-type]
        moves = (priced(changed) / seconds - 1.0) / (STEP - 1.0)
        if abs(moves) > LEAST_CHANGE:
            quantity = getattr(links.chip, name, None)
            unit = "B/s" if quantity is not None else "1"
            trust = str(quantity.trust) if quantity is not None else ""
            source = quantity.source if quantity is not None else "the cluster"
            found.append(Input(name, value, unit, moves, trust, source))
    return tuple(sorted(found, key=lambda item: (-abs(item.moves), item.name)))
