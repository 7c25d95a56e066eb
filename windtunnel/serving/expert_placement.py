"""Which rank holds which experts, as engines place them, and how much the busiest rank and node then carry.

Plainly: in the order of their numbers, the same count on every rank. With spare slots (EPLB of DeepSeek, vLLM and
SGLang): they go to the experts with most load a replica, then replicas are packed, heaviest first, onto the emptiest
rank that has a slot left. Where the groups of a group-limited router divide by the nodes, all three first pack whole
groups onto nodes, so that tokens reach fewer nodes, and do the rest inside each: a popular group then leaves its node
busy, whatever the slots (vLLM 0.33 ``eplb/policy/default.py``; SGLang 0.5.23 ``eplb_algorithms``, ``auto``).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExpertRanks:
    """Who shares the experts of a layer.

    Attributes:
        redundant: spare slots, all ranks together; 0: no balancer. groups: of a group-limited router; 0: none.
        per_node: cards of a node.
    """

    experts: int
    ranks: int
    redundant: int = 0
    groups: int = 0
    per_node: int = 8

    @property
    def slots(self) -> int:
        """Experts that every rank holds."""
        return slots_of(self.experts, self.ranks, self.redundant)

    @property
    def nodes(self) -> int:
        """Nodes that the ranks fill; 1 where they fill none or part of one."""
        return self.ranks // self.per_node if self.ranks % self.per_node == 0 else 1

    @property
    def by_groups(self) -> bool:
        """Whether whole groups are packed onto nodes."""
        return self.redundant > 0 and self.nodes > 1 and self.groups > 1 and self.groups % self.nodes == 0

    @property
    def packed(self) -> int:
        """Ranks among which replicas are packed: all, or those of a node."""
        return self.ranks // self.nodes if self.by_groups else self.ranks


def slots_of(experts: int, ranks: int, redundant: int = 0) -> int:
    """Experts that every rank holds; whole, so that some are held twice where ranks do not divide them."""
    return -(-(experts + redundant) // ranks)


def rank_loads(loads: Sequence[float], where: ExpertRanks) -> list[float]:
    """Load of every rank, node after node; replicas of an expert share its tokens evenly."""
    if not where.redundant:
        held = [loads[first : first + where.slots] for first in range(0, len(loads), where.slots)]
        return [sum(some) for some in held] + [0.0] * (where.ranks - len(held))
    if not where.by_groups:
        return _balanced(loads, where.ranks, where.slots)
    size = len(loads) // where.groups
    groups = [loads[first : first + size] for first in range(0, len(loads), size)]
    found = []
    for node in _packed([sum(group) for group in groups], where.nodes, where.groups // where.nodes):
        found += _balanced([load for group in node for load in groups[group]], where.packed, where.slots)
    return found


def busiest(loads: Sequence[float], where: ExpertRanks) -> tuple[float, float]:
    """Load of the busiest rank and of the busiest node over their means, at least 1."""
    ranks = rank_loads(loads, where)
    size, whole = where.ranks // where.nodes, sum(ranks)
    node = max(sum(ranks[first : first + size]) for first in range(0, where.ranks, size))
    return max(1.0, max(ranks) * where.ranks / whole), max(1.0, node * where.nodes / whole)


def _balanced(loads: Sequence[float], ranks: int, slots: int) -> list[float]:
    replicas = [1] * len(loads)
    heap = [(-load, expert) for expert, load in enumerate(loads)]
    heapq.heapify(heap)
    for _ in range(slots * ranks - len(loads)):
        _, expert = heapq.heappop(heap)
        replicas[expert] += 1
        heapq.heappush(heap, (-loads[expert] / replicas[expert], expert))
    parts = [loads[expert] / count for expert, count in enumerate(replicas) for _ in range(count)]
    return [sum(parts[one] for one in some) for some in _packed(parts, ranks, slots)]


def _packed(parts: Sequence[float], packs: int, slots: int) -> list[list[int]]:
    """Parts of every pack: heaviest first onto the emptiest with a slot left."""
    found: list[list[int]] = [[] for _ in range(packs)]
    emptiest = [(0.0, pack) for pack in range(packs)]
    for one in sorted(range(len(parts)), key=lambda part: -parts[part]):
        load, pack = heapq.heappop(emptiest)
        found[pack].append(one)
        if len(found[pack]) < slots:
            heapq.heappush(emptiest, (load + parts[one], pack))
    return found
