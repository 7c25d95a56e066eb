"""Collectives that run at once on the same links: what each gets, and when it is through.

A collective asks for a share of what it runs over: the card's links through a switch, its links to each peer of a
mesh, its network card, the uplinks of its pod, and on PCIe the slot that carries both. Directions are apart. What a
link has is shared out fairly (max-min, as switches arbitrate between flows): who asks for little gets it, the others
get equal parts. A collective advances at the pace of its scarcest link, and collectives of one group one after another.
Cards do the same at the same time, so that one card's view is enough.
Not here: how long a collective takes alone (``tiers.py``), multiprocessors (``timeline/interference.py``).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from windtunnel.network.collective import Collective
from windtunnel.network.links import Links
from windtunnel.network.time import NetworkTime
from windtunnel.network.topology import GroupShape
from windtunnel.specs.schema import ScaleUp

_ONE_WAY = {Collective.SEND: ("out",), Collective.RECV: ("in",)}


class Demand(NamedTuple):
    """What a collective asks of one link: the share of its capacity, 0 to 1, while it runs alone."""

    link: tuple[str | int, ...]
    share: float


class Traffic(NamedTuple):
    """One collective as one card sees it. ``seconds``: alone. ``group``: those of one run one after another."""

    group: Hashable
    start_s: float
    seconds: float
    demands: tuple[Demand, ...]


def demands(
    kind: Collective, time: NetworkTime, shape: GroupShape, ranks: Sequence[int], own: int, links: Links
) -> tuple[Demand, ...]:
    """What a collective over ``ranks`` asks of the links of card ``own``."""
    node = own // links.cards_per_node
    peers = [rank for rank in ranks if rank != own and rank // links.cards_per_node == node]
    asked: list[tuple[tuple[str | int, ...], float]] = []
    if links.scale_up is ScaleUp.MESH:
        asked += [(("pair", peer % links.cards_per_node), time.link_busy) for peer in peers]
    elif links.scale_up is ScaleUp.PCIE:
        nic = time.nic_busy * links.nic_bytes_per_s / links.pcie_bytes_per_s
        asked.append((("slot",), time.link_busy + nic))
    else:
        asked.append((("links",), time.link_busy))
    asked.append((("nic",), time.nic_busy))
    if shape.pods > 1:
        asked.append((("uplink",), time.nic_busy * links.oversubscription))
    ways = _ONE_WAY.get(kind, ("out", "in"))
    return tuple(Demand((*link, way), min(1.0, share)) for link, share in asked if share > 0 for way in ways)


def served(traffic: Sequence[Traffic]) -> tuple[list[float], list[float]]:
    """When each collective begins and ends. Starts are the earliest times: a busy group delays its next one."""
    waiting = deque(sorted(range(len(traffic)), key=lambda n: (traffic[n].start_s, n)))
    queues: dict[Hashable, deque[int]] = defaultdict(deque)
    left: dict[int, float] = {}
    begins, ends = [0.0] * len(traffic), [0.0] * len(traffic)
    now = 0.0

    def begin(number: int) -> None:
        left[number], begins[number] = traffic[number].seconds, now

    while waiting or left:
        if not left:
            now = max(now, traffic[waiting[0]].start_s)
        while waiting and traffic[waiting[0]].start_s <= now:
            number = waiting.popleft()
            queue = queues[traffic[number].group]
            queue.append(number)
            if len(queue) == 1:
                begin(number)
        pace = dict(zip(left, _paces(tuple(traffic[number].demands for number in left)), strict=True))
        first = min(left, key=lambda n: (left[n] / pace[n], n))
        until = now + left[first] / pace[first]
        if waiting and traffic[waiting[0]].start_s < until:
            until, first = traffic[waiting[0]].start_s, -1
        for number in left:
            left[number] = max(0.0, left[number] - (until - now) * pace[number])
        now = until
        if first >= 0:
            ends[first] = now
            del left[first]
            queue = queues[traffic[first].group]
            queue.popleft()
            if queue:
                begin(queue[0])
    return begins, ends


@lru_cache(maxsize=4096)
def _paces(active: tuple[tuple[Demand, ...], ...]) -> tuple[float, ...]:
    """Progress of each collective per second, 1 when alone. A step has few different company."""
    if len(active) == 1:
        return (1.0,)
    asked: dict[tuple[str | int, ...], list[float]] = defaultdict(list)
    for wishes in active:
        for link, share in wishes:
            asked[link].append(share)
    level = {link: _level(shares) for link, shares in asked.items()}
    return tuple(
        min((1.0, *(level[link] / share for link, share in wishes if share > level[link])))
        for wishes in active
    )


def _level(shares: Iterable[float]) -> float:
    """The most that anyone gets of a link: asking for less is granted, the rest is split evenly."""
    rest, level = 1.0, 1.0
    ordered = sorted(shares)
    for place, share in enumerate(ordered):
        level = rest / (len(ordered) - place)
        if share > level:
            return level
        rest -= share
    return 1.0
