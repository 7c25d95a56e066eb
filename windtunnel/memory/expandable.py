"""Expandable segments: one stretch of address space a pool and stream, backed page by page as it fills.

Pages are 2 MiB for the small pool and 20 MiB for the large one. A stretch has 9/8 of the card's memory in
addresses; growing backs the lowest ones that make room, releasing takes the backing off whole free pages.
"""

from __future__ import annotations

from bisect import insort

from windtunnel.memory.blocks import Block, Pool, absorb, split_front
from windtunnel.memory.driver import Driver
from windtunnel.units import MIB

SMALL_PAGE_BYTES = 2 * MIB
LARGE_PAGE_BYTES = 20 * MIB


class ExpandableSegments:
    """``expandable_segments:True``."""

    def __init__(self, driver: Driver, min_block_bytes: int) -> None:
        self.driver = driver
        self.min_block_bytes = min_block_bytes

    def choose(self, pool: Pool, at: int, size: int) -> int:
        """Best fit by the size that a block can grow to: the growing end is kept for large requests."""
        blocks = pool.blocks
        while at + 1 < len(blocks) and _room(blocks[at + 1]) < _room(blocks[at]):
            at += 1
        return at

    def splits(self, pool: Pool, size: int, remaining: int) -> bool:
        """Always, as nothing is lost by it."""
        return remaining >= self.min_block_bytes

    def grow(self, pool: Pool, size: int, segment_bytes: int) -> Block | None:
        """Back addresses at the lowest place with room for ``size``."""
        block = self._place(pool, size)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            following = block.next
            assert following is not None
            if not self._map(following, min(size - block.size, following.size)):
                return None
            block = following
        pool.remove(block)
        return block

    def release_oversize(self, pool: Pool, size: int) -> bool:
        """Never: pages are returned by ``release``."""
        return False

    def release(self, pool: Pool) -> None:
        """Take the backing off every whole free page."""
        for block in list(pool.blocks):
            self._unmap(block)

    def _place(self, pool: Pool, size: int) -> Block:
        for unmapped in pool.unmapped:
            before = unmapped.previous
            first = before if before is not None and not before.live else unmapped
            if _span(first, size) >= size:
                return first
        page = _page(pool)
        space = -(-(self.driver.total_bytes * 9 // 8) // page) * page
        block = Block(self.driver.addresses(max(space, -(-size // page) * page)), max(space, size), pool)
        block.mapped = False
        self.driver.heads[block.address] = block
        insort(pool.unmapped, block, key=_address)
        return block

    def _map(self, block: Block, nbytes: int) -> bool:
        """Back the first ``nbytes`` of an unmapped block in whole pages; merge with free neighbours."""
        pool = block.pool
        page = _page(pool)
        mapped = -(-nbytes // page) * page
        if not self.driver.take(pool, mapped, 0):
            return False
        pool.unmapped.remove(block)
        if mapped < block.size:
            # the front keeps the identity that callers hold; the rest is a new unmapped block
            rest = Block(block.address + mapped, block.size - mapped, pool)
            rest.mapped = False
            rest.previous, rest.next = block, block.next
            if rest.next is not None:
                rest.next.previous = rest
            block.next = rest
            block.size = mapped
            insort(pool.unmapped, rest, key=_address)
        block.mapped = True
        self._merge(block)
        pool.insert(block)
        return True

    def _unmap(self, block: Block) -> None:
        pool = block.pool
        page = _page(pool)
        head = _segment_start(block)
        first = head + -(-(block.address - head) // page) * page
        last = head + (block.address + block.size - head) // page * page
        if first >= last:
            return
        pool.remove(block)
        if first > block.address:
            front = split_front(block, first - block.address)
            pool.insert(front)
            if front.previous is None:
                self.driver.heads[front.address] = front
        if last < block.address + block.size:
            middle = split_front(block, last - block.address)
            pool.insert(block)
            block = middle
        self.driver.give_back(pool, block.size, 0)
        block.mapped = False
        self._merge(block)
        insort(pool.unmapped, block, key=_address)
        if not block.split:
            pool.unmapped.remove(block)
            del self.driver.heads[block.address]
        elif block.previous is None:
            self.driver.heads[block.address] = block

    def _merge(self, block: Block) -> None:
        """Absorb free neighbours in the same state (backed or not)."""
        pool = block.pool
        for neighbour in (block.previous, block.next):
            if neighbour is None or neighbour.live or neighbour.mapped != block.mapped:
                continue
            if neighbour.mapped:
                pool.remove(neighbour)
            else:
                pool.unmapped.remove(neighbour)
            absorb(block, neighbour)
        if block.previous is None:
            self.driver.heads[block.address] = block


def _page(pool: Pool) -> int:
    return SMALL_PAGE_BYTES if pool.small else LARGE_PAGE_BYTES


def _address(block: Block) -> int:
    return block.address


def _room(block: Block) -> int:
    following = block.next
    return block.size + (following.size if following is not None and not following.mapped else 0)


def _span(block: Block, enough: int) -> int:
    """Bytes of address space not in use from ``block`` on, counted up to ``enough``."""
    total = 0
    current: Block | None = block
    while total < enough and current is not None and not current.live:
        total += current.size
        current = current.next
    return total


def _segment_start(block: Block) -> int:
    while block.previous is not None:
        block = block.previous
    return block.address
