"""How much groups slow each other down when they use the same links at the same time.

Each group loads some resources (a card's scale-up links, its network card, its pod's uplinks); a resource
asked for more than it has makes everyone on it wait in proportion. In a mesh every pair has its own links, so
disjoint groups share nothing; through a crossbar a card's links are its own; uplinks are shared by a pod.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from windtunnel.network.links import Links


def sharing(groups: Sequence[tuple[int, ...]], links: Links) -> list[float]:
    """For groups that communicate at once: by how many the busiest link of each is shared (1: alone)."""
    users: dict[tuple[str, int], set[int]] = defaultdict(set)
    used: list[set[tuple[str, int]]] = []
    for number, ranks in enumerate(groups):
        resources = _resources(ranks, links)
        used.append(resources)
        for resource in resources:
            users[resource].add(number)
    return [float(max((len(users[resource]) for resource in resources), default=1)) for resources in used]


def _resources(ranks: tuple[int, ...], links: Links) -> set[tuple[str, int]]:
    nodes = {rank // links.cards_per_node for rank in ranks}
    inside = {("links", rank) for rank in ranks}
    return inside | {("nic", rank) for rank in ranks} if len(nodes) > 1 else inside
