"""Blocks, free lists and counters of the caching allocator. Data structures only, no policy.

Free lists are sorted lists of integers ``size << 48 | address``: the order of PyTorch's
``BlockComparatorSize`` (size, then address) in one machine comparison.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

ADDRESS_BITS = 48

METRICS = ("active", "active_bytes", "requested_bytes", "segment", "reserved_bytes")
"""Each has a current value, ``_peak`` and ``_freed`` (sum of decreases) in ``Counters``."""


@dataclass(slots=True)
class Counters:
    """Numbers of one kind of pool, or of all. Plain fields: they are touched at every allocation."""

    active: int = 0
    active_peak: int = 0
    active_freed: int = 0
    active_bytes: int = 0
    active_bytes_peak: int = 0
    active_bytes_freed: int = 0
    requested_bytes: int = 0
    requested_bytes_peak: int = 0
    requested_bytes_freed: int = 0
    segment: int = 0
    segment_peak: int = 0
    segment_freed: int = 0
    reserved_bytes: int = 0
    reserved_bytes_peak: int = 0
    reserved_bytes_freed: int = 0

    def hand_out(self, nbytes: int, requested: int) -> None:
        """A block went to the program."""
        count = self.active = self.active + 1
        if count > self.active_peak:
            self.active_peak = count
        held = self.active_bytes = self.active_bytes + nbytes
        if held > self.active_bytes_peak:
            self.active_bytes_peak = held
        held = self.requested_bytes = self.requested_bytes + requested
        if held > self.requested_bytes_peak:
            self.requested_bytes_peak = held

    def take_back(self, nbytes: int, requested: int) -> None:
        """A block came back from the program."""
        self.active -= 1
        self.active_freed += 1
        self.active_bytes -= nbytes
        self.active_bytes_freed += nbytes
        self.requested_bytes -= requested
        self.requested_bytes_freed += requested

    def reserve(self, nbytes: int, segments: int) -> None:
        """Memory came from the driver."""
        self.reserved_bytes += nbytes
        self.segment += segments
        self.reserved_bytes_peak = max(self.reserved_bytes_peak, self.reserved_bytes)
        self.segment_peak = max(self.segment_peak, self.segment)

    def release(self, nbytes: int, segments: int) -> None:
        """Memory went back to the driver."""
        self.reserved_bytes -= nbytes
        self.reserved_bytes_freed += nbytes
        self.segment -= segments
        self.segment_freed += segments


class Pool:
    """Free blocks of one stream and one kind (small or large)."""

    __slots__ = ("blocks", "counters", "keys", "small", "stream", "unmapped")

    def __init__(self, stream: int, small: bool, counters: Counters) -> None:
        self.stream = stream
        self.small = small
        self.counters = counters
        self.keys: list[int] = []
        self.blocks: list[Block] = []  # beside keys
        self.unmapped: list[Block] = []  # of expandable segments, by address

    def insert(self, block: Block) -> None:
        """Put a free block into the list."""
        key = block.size << ADDRESS_BITS | block.address
        at = bisect_left(self.keys, key)
        self.keys.insert(at, key)
        self.blocks.insert(at, block)

    def remove(self, block: Block) -> None:
        """Take a free block out; it must be there."""
        at = bisect_left(self.keys, block.size << ADDRESS_BITS | block.address)
        del self.keys[at]
        del self.blocks[at]

    def lower_bound(self, nbytes: int) -> int:
        """Position of the smallest free block of at least ``nbytes``."""
        return bisect_left(self.keys, nbytes << ADDRESS_BITS)


class Block:
    """A piece of a segment: live, free, or (in expandable segments) not backed by memory.

    ``previous`` and ``next`` are its neighbours in the segment; a block with neither is a whole segment.
    """

    __slots__ = ("address", "live", "mapped", "next", "pool", "previous", "requested", "size")

    def __init__(self, address: int, size: int, pool: Pool) -> None:
        self.address = address
        self.size = size
        self.pool = pool
        self.requested = 0
        self.previous: Block | None = None
        self.next: Block | None = None
        self.live = False
        self.mapped = True

    @property
    def split(self) -> bool:
        """Whether it is only a part of its segment."""
        return self.previous is not None or self.next is not None


def split_front(block: Block, size: int) -> Block:
    """Cut ``size`` bytes off the front of ``block``; returns the new block, ``block`` is what remains."""
    front = Block(block.address, size, block.pool)
    before = block.previous
    front.previous = before
    if before is not None:
        before.next = front
    front.next = block
    block.previous = front
    block.address += size
    block.size -= size
    return front


def absorb(block: Block, neighbour: Block) -> None:
    """Merge a neighbour into ``block``. Free lists are the caller's business."""
    if block.previous is neighbour:
        block.address = neighbour.address
        block.previous = neighbour.previous
        if block.previous is not None:
            block.previous.next = block
    else:
        block.next = neighbour.next
        if block.next is not None:
            block.next.previous = block
    block.size += neighbour.size
