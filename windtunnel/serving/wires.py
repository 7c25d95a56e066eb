"""Caches on their way from prefill to decode replicas: whole when a prompt is complete, or part by part.

vLLM's decode side fetches a cache when its prompt is complete (NIXL connector, pull). SGLang's prefill side sends what
the card has of a prompt when its first step begins, then the whole pages of every chunk as it is computed, and the rest
with the last (``send_kv_chunk``, 0.5.23). What leaves a replica follows what left before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Request, Served


class Wires:
    """One wire a prefill replica. ``whole_s``: seconds of so many tokens; ``part_s``: of a part that is not the last.

    Without ``part_s`` caches leave whole. ``arriving``: a heap of (seconds, request's number).
    """

    def __init__(
        self,
        prefill: Iterable[Replica],
        whole_s: Callable[[int], float],
        part_s: Callable[[int], float] | None,
    ) -> None:
        self.arriving: list[tuple[float, int]] = []
        self._whole_s, self._part_s = whole_s, part_s
        self._free_s: dict[int, float] = {}
        self._sent: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._replicas = {replica.number: replica for replica in prefill}
        if part_s is not None:
            for replica in self._replicas.values():
                replica.parts = []

    def send(self, done: Served, request: Request) -> None:
        """A prompt is complete: the rest of its cache leaves, behind all that was ready before it."""
        self._parts(done.replica, done.finished_s)
        left = request.prompt_tokens - self._sent.pop(request.number, 0)
        self._put(done.replica, done.finished_s, self._whole_s(left))
        heapq.heappush(self.arriving, (self._free_s[done.replica], request.number))

    def _parts(self, number: int, until_s: float) -> None:
        """Parts that were ready by ``until_s``."""
        parts = self._replicas[number].parts
        if parts is None or self._part_s is None:
            return
        place = self._seen.get(number, 0)
        while place < len(parts) and parts[place].at_s <= until_s:
            part = parts[place]
            place += 1
            fresh = part.tokens - self._sent.get(part.number, 0)
            if fresh > 0 and not part.last:
                self._sent[part.number] = part.tokens
                self._put(number, part.at_s, self._part_s(fresh))
        self._seen[number] = place

    def _put(self, number: int, at_s: float, seconds: float) -> None:
        self._free_s[number] = max(self._free_s.get(number, 0.0), at_s) + seconds
