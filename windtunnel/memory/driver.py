"""The driver's side of the allocator: how much memory is left, and segments of a fixed size from it.

``FixedSegments`` is PyTorch's default way to grow, one ``cudaMalloc`` a segment; ``expandable.py`` is the
other.
"""

from __future__ import annotations

from typing import Protocol

from windtunnel.memory.blocks import Block, Counters, Pool
from windtunnel.units import MIB

ADDRESS_STEP_BYTES = 2 * MIB

_FIRST_ADDRESS = 0x1000_0000_0000


class Driver:
    """Memory of the card that this process may take.

    Attributes:
        capacity_bytes: what the driver can give in all.
        allowed_bytes: cap set by the script (``set_per_process_memory_fraction``), or None.
        counters: sums over all pools.
        heads: the first block of each segment by its address.
    """

    def __init__(self, capacity_bytes: int, total_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.total_bytes = total_bytes
        self.allowed_bytes: int | None = None
        self.counters = Counters()
        self.heads: dict[int, Block] = {}
        self.allocations = 0
        self.frees = 0
        self._next_address = _FIRST_ADDRESS

    @property
    def free_bytes(self) -> int:
        """What is left."""
        return self.capacity_bytes - self.counters.reserved_bytes

    def addresses(self, nbytes: int) -> int:
        """Address space that nothing else will use; never handed out twice, so runs repeat exactly."""
        address = self._next_address
        self._next_address += -(-nbytes // ADDRESS_STEP_BYTES) * ADDRESS_STEP_BYTES
        return address

    def take(self, pool: Pool, nbytes: int, segments: int) -> bool:
        """Memory for a pool; False where there is not enough."""
        if nbytes > self.free_bytes:
            return False
        self.allocations += 1
        self.counters.reserve(nbytes, segments)
        pool.counters.reserve(nbytes, segments)
        return True

    def give_back(self, pool: Pool, nbytes: int, segments: int) -> None:
        """Memory of a pool returned."""
        self.frees += 1
        self.counters.release(nbytes, segments)
        pool.counters.release(nbytes, segments)


class Growth(Protocol):
    """A way to get memory from the driver and to return it."""

    def choose(self, pool: Pool, at: int, size: int) -> int:
        """Position of the free block to use, at or after the best fit; -1 for none."""

    def splits(self, pool: Pool, size: int, remaining: int) -> bool:
        """Whether what is left over of a block becomes a free block."""

    def grow(self, pool: Pool, size: int, segment_bytes: int) -> Block | None:
        """A block of at least ``size`` from the driver, in no free list; None where it has no more."""

    def release_oversize(self, pool: Pool, size: int) -> bool:
        """Return just enough unsplittable cached blocks for a request; False where that cannot help."""

    def release(self, pool: Pool) -> None:
        """Return everything that is whole and free."""


class FixedSegments:
    """One driver allocation a segment; a segment goes back when all of it is free."""

    def __init__(
        self, driver: Driver, small_bytes: int, max_split_bytes: int | None, max_rounding_bytes: int
    ) -> None:
        self.driver = driver
        self.small_bytes = small_bytes
        self.max_split_bytes = max_split_bytes
        self.max_rounding_bytes = max_rounding_bytes

    def choose(self, pool: Pool, at: int, size: int) -> int:
        """The best fit, unless it is an unsplittable block much larger than asked."""
        limit = self.max_split_bytes
        if limit is None:
            return at
        found = pool.blocks[at].size
        if size < limit <= found or (size >= limit and found >= size + self.max_rounding_bytes):
            return -1
        return at

    def splits(self, pool: Pool, size: int, remaining: int) -> bool:
        """Small blocks always split; large ones when more than ``small_bytes`` remains."""
        if pool.small:
            return True
        return remaining > self.small_bytes and (self.max_split_bytes is None or size < self.max_split_bytes)

    def grow(self, pool: Pool, size: int, segment_bytes: int) -> Block | None:
        """A new segment."""
        if not self.driver.take(pool, segment_bytes, 1):
            return None
        block = Block(self.driver.addresses(segment_bytes), segment_bytes, pool)
        self.driver.heads[block.address] = block
        return block

    def release_oversize(self, pool: Pool, size: int) -> bool:
        """The smallest single block that suffices, else the largest ones until they do."""
        limit = self.max_split_bytes
        if limit is None:
            return False
        wanted = max(size, limit)
        at = pool.lower_bound(wanted)
        if at < len(pool.blocks):
            self._return(pool, pool.blocks[at])
            return True
        released = 0
        while released < wanted and pool.blocks and pool.blocks[-1].size >= limit:
            released += pool.blocks[-1].size
            self._return(pool, pool.blocks[-1])
        return released >= wanted

    def release(self, pool: Pool) -> None:
        """Every free block that is a whole segment."""
        for block in [block for block in pool.blocks if not block.split]:
            self._return(pool, block)

    def _return(self, pool: Pool, block: Block) -> None:
        pool.remove(block)
        del self.driver.heads[block.address]
        self.driver.give_back(pool, block.size, 1)
