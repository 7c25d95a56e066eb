"""Prompts whose cache is on its way from a slower tier, as vLLM waits for it: their blocks are taken, others run.

The blocks that such prompts will still need are kept free of others that load, so that the first to arrive can go on.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence as Seq
from enum import Enum

from windtunnel.serving.kv_cache import BlockPool, Hit
from windtunnel.serving.kv_tiers import KvTiers, first_tokens
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence


class Begun(Enum):
    """Whether a prompt's cache is on its way now."""

    YES = "yes"
    NOTHING = "nothing to load"
    NO_ROOM = "no room for the prompt"


class Loading:
    """The prompts of one rank. ``kept_free``: blocks that they, and those that wait to go on, will still take."""

    def __init__(self, tiers: KvTiers, pool: BlockPool, options: SchedulerOptions) -> None:
        self.tiers = tiers
        self.kept_free = 0
        self.under_way: list[tuple[float, int, Sequence]] = []  # a heap
        self._pool = pool
        self._size = options.block_size
        self._groups = options.state_groups

    @property
    def next_s(self) -> float:
        """When the next cache is there; infinity: none is on its way."""
        return self.under_way[0][0] if self.under_way else float("inf")

    def begin(self, sequence: Sequence, found: Seq[Hit], blocks: int, now_s: float) -> Begun:
        """Load what tiers have after the ``blocks`` ``found`` on the card."""
        size, pool = self._size, self._pool
        have, most = blocks * size, (sequence.known - 1) // size * size
        spans = [(key, count * size) for key, count in sequence.parts]
        more = self.tiers.find(spans, have, most, now_s)
        need = -(-sequence.known // size) - blocks + pool.idle_among(found) + self._groups
        if more is not None and need > pool.free - self.kept_free:
            return Begun.NO_ROOM
        if sequence.admitted_s < 0:
            self.tiers.count(most - have)
        if more is None:
            return Begun.NOTHING
        pool.touch(sequence, found)
        sequence.keyed = blocks
        pool.take(more.tokens // size)
        sequence.blank = more.tokens // size
        sequence.computed = have + more.tokens
        sequence.tier_tokens = more.tokens if sequence.admitted_s < 0 else 0
        self.kept_free += still_to_take(sequence)
        heapq.heappush(self.under_way, (self.tiers.load(more, now_s), sequence.request.number, sequence))
        return Begun.YES

    def arrived(self, now_s: float) -> list[Sequence]:
        """Those whose cache is there by now, last first."""
        ready: list[Sequence] = []
        while self.next_s <= now_s:
            sequence = heapq.heappop(self.under_way)[2]
            sequence.register(sequence.computed)
            sequence.loaded = True
            ready.append(sequence)
        return ready[::-1]

    def drop(self, sequence: Sequence) -> None:
        """The sequence goes on, or is given up: nothing is kept free for it any more."""
        self.kept_free -= still_to_take(sequence)
        if not sequence.loaded:
            self.under_way = [entry for entry in self.under_way if entry[2] is not sequence]
            heapq.heapify(self.under_way)

    def store(self, sequence: Sequence, now_s: float) -> None:
        """Write through the full blocks of what is computed of a sequence."""
        size = self._size
        full, known = sequence.computed // size * size, sequence.known_blocks * size
        kept = first_tokens([(key, count * size) for key, count in sequence.parts], min(full, known))
        if full > known:
            kept.append((sequence.output_key, full - known))
        self.tiers.store(kept, now_s)


def still_to_take(sequence: Sequence) -> int:
    """Blocks of its prompt that it does not hold yet."""
    return -(-sequence.known // sequence.block_tokens) - sequence.held
