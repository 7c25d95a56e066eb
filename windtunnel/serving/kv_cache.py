"""Paged cache blocks with prefix reuse: which are free, which are evicted next. Counts, no contents.

As vLLM's block pool does it (0.29 to 0.33): blocks without a key are handed out before any block with one;
blocks with a key are evicted least recently freed first, a request's tail before its head. Several blocks may
carry one key when prompts were computed side by side; the one registered first is found.

Blocks that share a fate are kept as one ``Run``: neighbours of one key of the traffic (512 tokens in published
traces) which the same sequences hold. A run is split where a sequence takes a part of it, and shrinks from its
tail as it is evicted, so that the cost is by keys, not by blocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol


class Holder(Protocol):
    """Whoever holds runs, in the order of its tokens."""

    @property
    def runs(self) -> list[Run]:
        """The runs held; the pool writes to it."""
        ...


class Run:
    """Blocks ``first`` to ``end`` of those of ``key``. ``holders``: who holds all of them now."""

    __slots__ = ("end", "first", "holders", "key")

    def __init__(self, key: int, first: int, end: int, holders: list[Holder]) -> None:
        self.key = key
        self.first = first
        self.end = end
        self.holders = holders

    @property
    def size(self) -> int:
        """Blocks in it."""
        return self.end - self.first


Hit = tuple[Run, int, int]
"""A run and the part of it that is meant."""


class BlockPool:
    """``capacity`` blocks. ``version`` moves when more may fit or be found than before.

    ``gone``: where wanted, what was evicted, by key, first and end.
    """

    __slots__ = ("_found", "_idle", "_idle_blocks", "blank", "capacity", "gone", "version")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a cache needs at least one block")
        self.capacity = capacity
        self.blank = capacity
        self.version = 0
        self.gone: list[tuple[int, int, int]] | None = None
        self._idle: OrderedDict[Run, None] = OrderedDict()
        self._idle_blocks = 0
        self._found: dict[int, Run | list[Run]] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self.blank + self._idle_blocks

    @property
    def used(self) -> int:
        """Blocks that sequences hold."""
        return self.capacity - self.blank - self._idle_blocks

    def find(self, keys: Sequence[tuple[int, int]], most: int) -> tuple[list[Hit], int]:
        """The longest known prefix of at most ``most`` blocks, and its length; keys with their blocks."""
        hits: list[Hit] = []
        found, left = self._found, most
        for key, blocks in keys:
            want = blocks if blocks < left else left
            entry = found.get(key)
            if want <= 0 or entry is None:
                break
            if isinstance(entry, list):
                got = self._first_of(entry, want, hits)
            elif entry.first:
                break
            else:
                got = entry.end if entry.end < want else want
                hits.append((entry, 0, got))
            left -= got
            if got < blocks:
                break
        return hits, most - left

    def idle_among(self, hits: Sequence[Hit]) -> int:
        """How many of their blocks nobody holds: taking them uses up free blocks."""
        return sum(end - first for run, first, end in hits if not run.holders)

    def touch(self, holder: Holder, hits: Sequence[Hit]) -> None:
        """Hold what was found."""
        runs = holder.runs
        for run, first, end in hits:
            part = run if run.first == first and run.end == end else self._split(run, first, end)
            if not part.holders:
                del self._idle[part]
                self._idle_blocks -= part.end - part.first
            part.holders.append(holder)
            runs.append(part)

    def take(self, count: int) -> None:
        """Hold ``count`` blocks without a key, evicting idle ones when no blank one is left.

        The caller made sure that ``count <= free``.
        """
        blank = self.blank
        if count <= blank:
            self.blank = blank - count
            return
        self.blank = 0
        count -= blank
        self._idle_blocks -= count
        idle, found = self._idle, self._found
        while count:
            run = next(iter(idle))
            size = run.end - run.first
            if self.gone is not None:
                self.gone.append((run.key, max(run.first, run.end - count), run.end))
            if size > count:
                run.end -= count
                return
            del idle[run]
            if found[run.key] is run:
                del found[run.key]
            else:
                self._forget(run)
            count -= size

    def register(self, holder: Holder, key: int, first: int, end: int) -> None:
        """Give a key to blocks that the holder holds without one."""
        entry = self._found.get(key)
        self.version += 1
        if entry is None:
            run = self._found[key] = Run(key, first, end, [holder])
            holder.runs.append(run)
            return
        if isinstance(entry, Run):
            if entry.end == first and len(entry.holders) == 1 and entry.holders[0] is holder:
                entry.end = end
                return
            entry = self._found[key] = [entry]
        run = Run(key, first, end, [holder])
        entry.append(run)
        holder.runs.append(run)

    def release(self, holder: Holder, blank: int) -> None:
        """Let go of everything one holder holds, and of ``blank`` blocks without a key."""
        for run in reversed(holder.runs):
            self.drop(holder, run)
        holder.runs.clear()
        self.blank += blank
        self.version += 1

    def drop(self, holder: Holder, run: Run) -> None:
        """Let go of one run; the holder forgets it itself."""
        holders = run.holders
        if len(holders) == 1:
            holders.clear()
            self._idle[run] = None
            self._idle_blocks += run.end - run.first
        else:
            holders.remove(holder)

    def _first_of(self, runs: list[Run], want: int, hits: list[Hit]) -> int:
        """Add the parts that are found of a key with several runs: of each block, the one registered first."""
        place = 0
        while place < want:
            index = next((i for i, run in enumerate(runs) if run.first <= place < run.end), -1)
            if index < 0:
                break
            run = runs[index]
            earlier = [other.first for other in runs[:index] if place < other.first]
            end = min([run.end, want, *earlier])
            hits.append((run, place, end))
            place = end
        return place

    def _split(self, run: Run, first: int, end: int) -> Run:
        """Cut a run so that ``first`` to ``end`` is one of its own."""
        part = self._cut(run, end) if end < run.end else run
        if first > part.first:
            self._cut(part, first)
        return part

    def _cut(self, run: Run, at: int) -> Run:
        """Two runs out of one: the head is new and the answer, the tail keeps its name and its place in line."""
        head = Run(run.key, run.first, at, list(run.holders))
        run.first = at
        entry = self._found[run.key]
        if isinstance(entry, Run):
            self._found[run.key] = [head, run]
        else:
            entry.insert(entry.index(run), head)
        for holder in run.holders:
            holder.runs.insert(holder.runs.index(run), head)
        if not run.holders:  # evicted right after its tail
            line = list(self._idle)
            after = line[line.index(run) + 1 :]
            self._idle = OrderedDict.fromkeys([*line[: len(line) - len(after)], head, *after])
        return head

    def _forget(self, run: Run) -> None:
        entry = self._found[run.key]
        if isinstance(entry, Run):
            del self._found[run.key]
            return
        entry.remove(run)
        if len(entry) == 1:
            self._found[run.key] = entry[0]
