"""Caches on their way between engines of their own: one port each way, one after another. Knows no vLLM types."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping


class Wire:
    """One engine's port: caches follow one another. ``seconds``: for so many tokens."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self._seconds = seconds
        self._free_at = 0.0
        self._under_way: list[tuple[float, str, bool]] = []

    def start(self, sending: Mapping[str, int], receiving: Mapping[str, int], now_s: float) -> None:
        """Queue what begins to move now: tokens of each request."""
        for sent, tokens_of in ((True, sending), (False, receiving)):
            for name, tokens in tokens_of.items():
                self._free_at = max(now_s, self._free_at) + self._seconds(tokens)
                heapq.heappush(self._under_way, (self._free_at, name, sent))

    @property
    def next_at(self) -> float | None:
        """When the next one is over."""
        return self._under_way[0][0] if self._under_way else None

    def finished(self, now_s: float) -> tuple[set[str], set[str]]:
        """Requests sent and received by now that were not told yet."""
        over: dict[bool, set[str]] = {True: set(), False: set()}
        while self._under_way and self._under_way[0][0] <= now_s:
            _, name, sent = heapq.heappop(self._under_way)
            over[sent].add(name)
        return over[True], over[False]
