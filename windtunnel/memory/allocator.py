"""PyTorch's CUDA caching allocator, re-enacted: same rounding, pools, best fit, splitting and retries.

Rules follow c10/cuda/CUDACachingAllocator.cpp (PyTorch 2.11 to 2.13), the native backend:

* requests are rounded to 512 bytes; up to 1 MiB they live in 2 MiB segments, below 10 MiB in 20 MiB segments,
  above in segments rounded to 2 MiB;
* the smallest free block of the stream that fits is taken, lowest address first among equals; what is left
  over is split off from 512 bytes on (small) or if more than 1 MiB (large);
* freed blocks merge with free neighbours of their segment;
* when the driver has no more, unsplit cached segments are returned and the request is tried once more.

Not modelled: private pools of CUDA graphs, age-based garbage collection, and blocks kept back because another
stream may still use them (``record_stream``): they are free at once here.
"""

from __future__ import annotations

from bisect import bisect_left

from windtunnel.memory.blocks import ADDRESS_BITS, Block, Counters, Pool, absorb, split_front
from windtunnel.memory.driver import Driver, FixedSegments, Growth
from windtunnel.memory.expandable import ExpandableSegments
from windtunnel.memory.oom import OutOfMemory
from windtunnel.memory.settings import AllocatorSettings
from windtunnel.memory.snapshot import Segment, segments_of
from windtunnel.memory.statistics import Statistics, inactive_split
from windtunnel.units import MIB

MIN_BLOCK_BYTES = 512
SMALL_BYTES = 1 * MIB
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_SEGMENT_BYTES = 20 * MIB
MIN_LARGE_BYTES = 10 * MIB
ROUND_LARGE_BYTES = 2 * MIB


class CachingAllocator:
    """One card's allocator.

    Args:
        capacity_bytes: what the driver can give to it: total memory less what is held outside.
        total_bytes: the card's memory, for messages and fractions; ``capacity_bytes`` if not given.
        settings: options of ``PYTORCH_CUDA_ALLOC_CONF``.
    """

    def __init__(
        self,
        capacity_bytes: int,
        *,
        total_bytes: int | None = None,
        settings: AllocatorSettings | None = None,
    ) -> None:
        self.settings = settings or AllocatorSettings()
        self.driver = Driver(capacity_bytes, capacity_bytes if total_bytes is None else total_bytes)
        self.retries = 0
        self.ooms = 0
        self.synchronisations = 0
        self._all = self.driver.counters
        self._kinds = (Counters(), Counters())
        self._statistics = Statistics((self._all, *self._kinds))
        self._pools: dict[int, tuple[Pool, Pool]] = {}
        self._live: dict[int, Block] = {}
        self._growth = self._way_to_grow()
        self._picky = self.settings.expandable_segments or self.settings.max_split_bytes is not None
        self._power2 = bool(self.settings.power2_divisions)

    @property
    def reserved_bytes(self) -> int:
        """Held from the driver."""
        return self._all.reserved_bytes

    @property
    def active_bytes(self) -> int:
        """Handed out, rounded to blocks."""
        return self._all.active_bytes

    @property
    def requested_bytes(self) -> int:
        """Asked for by live blocks, before rounding."""
        return self._all.requested_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        """The most reserved since the last ``reset_peaks``."""
        return self._all.reserved_bytes_peak

    @property
    def peak_active_bytes(self) -> int:
        """The most handed out since the last ``reset_peaks``."""
        return self._all.active_bytes_peak

    def allocate(self, nbytes: int, stream: int = 0) -> int:
        """Hand out ``nbytes`` on a stream and return their address; 0 bytes are address 0.

        Raises:
            OutOfMemory: the driver has no more, and returning the cache did not help.
        """
        if nbytes <= 0:
            return 0
        size = self.block_bytes(nbytes) if self._power2 else (nbytes + 511) & ~511
        pools = self._pools.get(stream) or self._new_pools(stream)
        pool = pools[0] if size <= SMALL_BYTES else pools[1]
        keys = pool.keys
        at = bisect_left(keys, size << ADDRESS_BITS)
        if at < len(keys) and self._picky:
            at = self._growth.choose(pool, at, size)
        if 0 <= at < len(keys):
            del keys[at]
            block = pool.blocks.pop(at)
        else:
            block = self._grow(pool, size)
        if block.size != size and self._growth.splits(pool, size, block.size - size):
            rest = block
            block = split_front(rest, size)
            pool.insert(rest)
            if block.previous is None:
                self.driver.heads[block.address] = block
        block.live = True
        block.requested = nbytes
        self._live[block.address] = block
        self._all.hand_out(block.size, nbytes)
        pool.counters.hand_out(block.size, nbytes)
        return block.address

    def free(self, address: int) -> None:
        """Give a block back to the cache; address 0 is nothing.

        Raises:
            KeyError: no live block starts at ``address``.
        """
        if not address:
            return
        block = self._live.pop(address)
        pool = block.pool
        self._all.take_back(block.size, block.requested)
        pool.counters.take_back(block.size, block.requested)
        block.live = False
        block.requested = 0
        before, after = block.previous, block.next
        if before is not None and not before.live and before.mapped:
            pool.remove(before)
            absorb(block, before)
            if block.previous is None:
                self.driver.heads[block.address] = block
        if after is not None and not after.live and after.mapped:
            pool.remove(after)
            absorb(block, after)
        pool.insert(block)

    def block_bytes(self, nbytes: int) -> int:
        """Size of the block that a request of ``nbytes`` is rounded to."""
        divisions = self.settings.divisions(nbytes)
        if divisions > 1 and nbytes > MIN_BLOCK_BYTES * divisions:
            return _divided_power2(nbytes, divisions)
        return max(MIN_BLOCK_BYTES, (nbytes + 511) & ~511)

    def set_fraction(self, fraction: float) -> None:
        """``set_per_process_memory_fraction``: cap reserved memory at a part of the card's total."""
        self.driver.allowed_bytes = int(fraction * self.driver.total_bytes)

    def empty_cache(self) -> None:
        """Return every whole free segment (or page) to the driver."""
        self.synchronisations += 1
        for kind in (1, 0):
            for pools in self._pools.values():
                self._growth.release(pools[kind])

    def reset_peaks(self) -> None:
        """Peaks start again from the current values."""
        self._statistics.reset_peaks()

    def reset_accumulated(self) -> None:
        """Sums and counts of events start again from 0."""
        self._statistics.reset_accumulated()
        self.retries = self.ooms = self.synchronisations = self.driver.allocations = self.driver.frees = 0

    def stats(self) -> dict[str, int]:
        """``torch.cuda.memory_stats()``, flat. ``inactive_split`` has current values only."""
        limit = self.settings.max_split_bytes
        values = self._statistics.flat() | {
            "num_alloc_retries": self.retries,
            "num_ooms": self.ooms,
            "num_sync_all_streams": self.synchronisations,
            "num_device_alloc": self.driver.allocations,
            "num_device_free": self.driver.frees,
            "max_split_size": -1 if limit is None else limit,
        }
        if not self.settings.expandable_segments:
            values |= inactive_split(pool for pools in self._pools.values() for pool in pools)
        return dict(sorted(values.items()))

    def snapshot(self) -> tuple[Segment, ...]:
        """Every segment with its blocks, by address."""
        heads = [head for _, head in sorted(self.driver.heads.items())]
        return segments_of(heads, self.settings.expandable_segments)

    def _way_to_grow(self) -> Growth:
        if self.settings.expandable_segments:
            return ExpandableSegments(self.driver, MIN_BLOCK_BYTES)
        rounding = self.settings.max_non_split_rounding_bytes
        return FixedSegments(self.driver, SMALL_BYTES, self.settings.max_split_bytes, rounding)

    def _new_pools(self, stream: int) -> tuple[Pool, Pool]:
        small, large = self._kinds
        pools = self._pools[stream] = (Pool(stream, True, small), Pool(stream, False, large))
        return pools

    def _grow(self, pool: Pool, size: int) -> Block:
        """A block from the driver; where it has none, return cached memory and try again."""
        nbytes = segment_bytes(size)
        block = self._try(pool, size, nbytes)
        if block is None and self._growth.release_oversize(pool, size):
            block = self._try(pool, size, nbytes)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._try(pool, size, nbytes)
        if block is None:
            self.ooms += 1
            raise OutOfMemory(
                requested_bytes=nbytes,
                allocated_bytes=self.active_bytes,
                reserved_bytes=self.reserved_bytes,
                free_bytes=self.driver.free_bytes,
                total_bytes=self.driver.total_bytes,
                outside_bytes=self.driver.total_bytes - self.driver.capacity_bytes,
                allowed_bytes=self.driver.allowed_bytes,
            )
        return block

    def _try(self, pool: Pool, size: int, nbytes: int) -> Block | None:
        allowed = self.driver.allowed_bytes
        if allowed is not None and self.reserved_bytes + nbytes > allowed:
            return None
        return self._growth.grow(pool, size, nbytes)


def segment_bytes(size: int) -> int:
    """What the driver is asked for to hold a block of ``size``."""
    if size <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if size < MIN_LARGE_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-size // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES


def _divided_power2(nbytes: int, divisions: int) -> int:
    """The next of ``divisions`` equal steps between two powers of two."""
    if nbytes & (nbytes - 1) == 0:
        return nbytes
    floor = 1 << (nbytes.bit_length() - 1)
    step = floor >> (divisions.bit_length() - 1)
    return floor << 1 if step == 0 else -(-nbytes // step) * step
