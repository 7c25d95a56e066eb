"""Which replica a request goes to: round robin, least load, or where its prefix was seen (cache aware).

Cache aware is SGLang's router's rule with its default thresholds: while loads are uneven, the shortest queue;
otherwise the replica that saw most of the prompt, if that is more than half of it, else the one that has seen
fewest blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Request

CACHE_THRESHOLD, BALANCE_ABSOLUTE, BALANCE_RELATIVE = 0.5, 32, 1.0001


class Policy(StrEnum):
    """Names of routing policies."""

    ROUND_ROBIN = "round-robin"
    LEAST_LOAD = "least-load"
    CACHE_AWARE = "cache-aware"


class Router:
    """Chooses among ``replicas``; remembers what it sent where."""

    def __init__(self, replicas: Sequence[Replica], policy: Policy = Policy.LEAST_LOAD) -> None:
        self.replicas = list(replicas)
        self.policy = policy
        self._turn = -1
        self._seen: list[set[int]] = [set() for _ in self.replicas]

    def choose(self, request: Request) -> Replica:
        """The replica for ``request``; ties go to the lowest number."""
        if len(self.replicas) == 1:
            return self.replicas[0]
        if self.policy is Policy.ROUND_ROBIN:
            self._turn = (self._turn + 1) % len(self.replicas)
            return self.replicas[self._turn]
        if self.policy is Policy.LEAST_LOAD:
            return self.replicas[self._least()]
        index = self._cache_aware(request)
        self._seen[index].update(request.keys)
        return self.replicas[index]

    def _least(self) -> int:
        best, least = 0, -1
        for place, replica in enumerate(self.replicas):
            load = replica.load
            if not load:
                return place
            if load < least or least < 0:
                best, least = place, load
        return best

    def _cache_aware(self, request: Request) -> int:
        loads = [replica.load for replica in self.replicas]
        high, low = max(loads), min(loads)
        if high - low > BALANCE_ABSOLUTE and high > low * BALANCE_RELATIVE:
            return self._least()
        matches = [self._matched(request, index) for index in range(len(self.replicas))]
        best = max(range(len(matches)), key=lambda index: (matches[index], -loads[index]))
        if request.keys and matches[best] > CACHE_THRESHOLD * len(request.keys):
            return best
        return min(range(len(self._seen)), key=lambda index: (len(self._seen[index]), loads[index]))

    def _matched(self, request: Request, index: int) -> int:
        seen, count = self._seen[index], 0
        for key in request.keys:
            if key not in seen:
                break
            count += 1
        return count
