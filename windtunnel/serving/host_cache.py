"""Host memory as vLLM's CPU offloading keeps it (0.33, ``lru``): blocks that are pinned while they move.

A request's blocks share one rank until it is done, tails evicted before heads; then each gets a rank of its own, tail
first. What is being written or read is not evicted; an offer that finds too little room is refused as a whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

BEING_WRITTEN = -1
Order = tuple[int, int]
"""A block's rank, and minus its place in the prompt."""


class Access:
    """The blocks that one request has used, with their places. ``rank`` 0: none yet."""

    __slots__ = ("rank", "seen")

    def __init__(self) -> None:
        self.rank = 0
        self.seen: dict[int, int] = {}


class HostCache:
    """``capacity`` blocks. ``stored`` and ``dropped`` count; ``version`` moves when more may be found or fit."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.stored = self.dropped = self.version = 0
        self._pins: dict[int, int] = {}
        self._order: dict[int, Order] = {}
        self._idle: set[int] = set()
        self._line: list[tuple[Order, int]] = []  # a heap of idle blocks, with entries that are out of date
        self._ranks = 0

    def has(self, block: int) -> bool | None:
        """Whether it can be read; None: not now, but it is being written."""
        pins = self._pins.get(block)
        return pins is not None and (pins != BEING_WRITTEN or None)

    def read(self, blocks: Iterable[tuple[int, int]], access: Access) -> None:
        """Pin blocks (with their places) while they are read."""
        pairs = list(blocks)
        for block, _ in pairs:
            if not self._pins[block]:
                self._idle.discard(block)
            self._pins[block] += 1
        self._use(pairs, access)

    def has_read(self, blocks: Iterable[int]) -> None:
        """They have been read."""
        self.version += 1
        for block in blocks:
            self._pins[block] -= 1
            if not self._pins[block]:
                self._rest(block)

    def offer(self, blocks: Sequence[tuple[int, int]], access: Access) -> list[int] | None:
        """Take in what is missing of blocks (with their places); None: refused, there is no room.

        The answer is being written until ``has_written``.
        """
        pins = self._pins
        fresh = [block for block, _ in blocks if block not in pins]
        self._use([pair for pair in blocks if pins.get(pair[0]) != BEING_WRITTEN], access)
        if not fresh:
            return []
        over = len(fresh) - (self.capacity - len(pins))
        if over > 0 and not self._evict(over, {block for block, _ in blocks}):
            return None
        places = dict(blocks)
        for block in fresh:
            pins[block] = BEING_WRITTEN
            self._order[block] = (self._rank(access), -places[block])
        self.stored += len(fresh)
        return fresh

    def has_written(self, blocks: Iterable[int]) -> None:
        """They can be read from now on."""
        self.version += 1
        for block in blocks:
            self._pins[block] = 0
            self._rest(block)

    def finish(self, access: Access) -> None:
        """A request is done: its blocks are used most recently, heads last."""
        for block in sorted(access.seen, key=access.seen.__getitem__, reverse=True):
            if block in self._pins:
                self._ranks += 1
                self._set(block, (self._ranks, 0))

    def _use(self, blocks: Iterable[tuple[int, int]], access: Access) -> None:
        fresh = [(block, place) for block, place in blocks if block not in access.seen]
        if not fresh:
            return
        access.seen.update(fresh)
        rank = self._rank(access)
        for block, place in fresh:
            if block in self._pins and self._order[block] < (rank, -place):
                self._set(block, (rank, -place))

    def _rank(self, access: Access) -> int:
        if not access.rank:
            self._ranks += 1
            access.rank = self._ranks
        return access.rank

    def _set(self, block: int, order: Order) -> None:
        self._order[block] = order
        if block in self._idle:
            heapq.heappush(self._line, (order, block))

    def _rest(self, block: int) -> None:
        self._idle.add(block)
        heapq.heappush(self._line, (self._order[block], block))

    def _evict(self, count: int, spared: set[int]) -> bool:
        """Drop so many idle blocks but ``spared`` ones; False: there are too few."""
        if count > len(self._idle):
            return False
        gone: dict[int, Order] = {}
        kept = []
        while self._line and len(gone) < count:
            order, block = heapq.heappop(self._line)
            if block not in self._idle or self._order[block] != order or block in gone:
                continue
            if block in spared:
                kept.append((order, block))
            else:
                gone[block] = order
        for entry in kept:
            heapq.heappush(self._line, entry)
        if len(gone) < count:
            for block, order in gone.items():
                heapq.heappush(self._line, (order, block))
            return False
        for block in gone:
            self._idle.discard(block)
            del self._pins[block], self._order[block]
        self.dropped += count
        return True
