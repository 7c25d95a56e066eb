"""A pool that keeps every block by itself, as the reference for one that keeps runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class Block:
    """One block that holds a known stretch of tokens. ``users``: sequences that hold it now."""

    __slots__ = ("key", "users")

    def __init__(self, key: int) -> None:
        self.key = key
        self.users = 1


class BlockPool:
    """``capacity`` blocks. ``version`` moves when more may fit or be found than before."""

    __slots__ = ("_found", "_idle", "blank", "capacity", "version")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a cache needs at least one block")
        self.capacity = capacity
        self.blank = capacity
        self.version = 0
        self._idle: OrderedDict[Block, None] = OrderedDict()
        self._found: dict[int, Block | list[Block]] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self.blank + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that sequences hold."""
        return self.capacity - self.free

    def find(self, keys: Sequence[int], most: int) -> list[Block]:
        """Blocks of the longest known prefix, at most ``most``."""
        hits: list[Block] = []
        found = self._found
        for key in keys[:most] if most < len(keys) else keys:
            entry = found.get(key)
            if entry is None:
                break
            hits.append(entry if isinstance(entry, Block) else entry[0])
        return hits

    def idle_among(self, blocks: Sequence[Block]) -> int:
        """How many of them nobody holds: taking them uses up free blocks."""
        return sum(1 for block in blocks if block.users == 0)

    def touch(self, blocks: Sequence[Block]) -> None:
        """Hold blocks that were found."""
        idle = self._idle
        for block in blocks:
            if block.users == 0:
                del idle[block]
            block.users += 1

    def take(self, count: int) -> None:
        """Hold ``count`` blocks without a key, evicting idle ones when no blank one is left.

        The caller made sure that ``count <= free``.
        """
        blank = self.blank
        if count <= blank:
            self.blank = blank - count
            return
        self.blank = 0
        for _ in range(count - blank):
            block, _ = self._idle.popitem(last=False)
            self._forget(block)

    def register(self, keys: Sequence[int]) -> list[Block]:
        """Give keys to blocks that the caller holds without one."""
        blocks = []
        found = self._found
        for key in keys:
            block = Block(key)
            entry = found.get(key)
            if entry is None:
                found[key] = block
            elif isinstance(entry, Block):
                found[key] = [entry, block]
            else:
                entry.append(block)
            blocks.append(block)
        self.version += 1
        return blocks

    def release(self, keyed: Sequence[Block], blank: int) -> None:
        """Let go of one sequence's blocks, in the order of its tokens."""
        idle = self._idle
        for block in reversed(keyed):
            block.users -= 1
            if block.users == 0:
                idle[block] = None
        self.blank += blank
        self.version += 1

    def _forget(self, block: Block) -> None:
        entry = self._found[block.key]
        if isinstance(entry, Block):
            del self._found[block.key]
            return
        entry.remove(block)
        if len(entry) == 1:
            self._found[block.key] = entry[0]
