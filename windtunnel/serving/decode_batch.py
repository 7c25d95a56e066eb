"""Decoding sequences as a batch: a count, a sum of contexts, and a calendar.

They all move by one token a step, so nothing is kept for each but when it ends (``_ends``, by the clock of steps) and
where on a dial of one block's length it needs its next block. Single counts are made real when a sequence leaves.
"""

from __future__ import annotations

import heapq

from windtunnel.serving.sequence import Sequence


class DecodeBatch:
    """``decodes`` sequences with ``contexts`` computed tokens in all; ``clock``: steps in which they moved."""

    def __init__(self, block_size: int) -> None:
        self.decodes = 0
        self.contexts = 0
        self.clock = 0
        self._block = block_size
        self._ends: dict[int, list[Sequence]] = {}
        self._end_clocks: list[int] = []  # a heap
        self._dial: list[dict[Sequence, None]] = [{} for _ in range(block_size)]

    def _next_end(self) -> int:
        """Clock at which the next decoding sequence ends."""
        clocks = self._end_clocks
        while clocks[0] <= self.clock or clocks[0] not in self._ends:
            heapq.heappop(clocks)
        return clocks[0]

    def _join(self, sequence: Sequence) -> None:
        clock, size = self.clock, self._block
        sequence.joined_at = clock
        ends_at = sequence.ends_at = clock + sequence.request.output_tokens - sequence.generated
        if ends_at in self._ends:
            self._ends[ends_at].append(sequence)
        else:
            self._ends[ends_at] = [sequence]
            heapq.heappush(self._end_clocks, ends_at)
        self._dial[(clock - sequence.computed) % size][sequence] = None
        self.decodes += 1
        self.contexts += sequence.computed

    def _leave(self, sequence: Sequence) -> None:
        """Make the lazy counts real; its entry in the calendar is void from now on."""
        size = self._block
        del self._dial[(sequence.joined_at - sequence.computed) % size][sequence]
        moved = self.clock - sequence.joined_at
        sequence.computed += moved
        sequence.generated += moved
        sequence.blank = -(-sequence.computed // size) - sequence.keyed
        self.decodes -= 1
        self.contexts -= sequence.computed
        sequence.joined_at = sequence.ends_at = -1
