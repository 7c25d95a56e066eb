"""Laws that hold for any sequence of requests, and equality with a slow reference that shares no code."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.memory.reference_allocator import NoMemory, ReferenceAllocator
from windtunnel.memory.allocator import CachingAllocator
from windtunnel.memory.oom import OutOfMemory
from windtunnel.memory.settings import AllocatorSettings
from windtunnel.units import MIB

SIZES = st.one_of(
    st.integers(1, 4096),
    st.integers(1, 2 * MIB),
    st.integers(1, 60 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 20 * MIB]),
)
STEPS = st.lists(st.tuples(SIZES, st.integers(0, 1), st.integers(0, 9)), max_size=60)
SETTINGS = st.sampled_from(
    [
        AllocatorSettings(),
        AllocatorSettings(expandable_segments=True),
        AllocatorSettings(max_split_bytes=24 * MIB),
        AllocatorSettings(power2_divisions=(4,) * 16),
    ]
)


def play(allocator: CachingAllocator, steps: list[tuple[int, int, int]]) -> list[int]:
    """Each step allocates, or frees the n-th live block when n < 4; returns addresses (-1: no memory)."""
    live: list[int] = []
    trace: list[int] = []
    for nbytes, stream, choice in steps:
        if choice < 4 and live:
            allocator.free(live.pop(choice % len(live)))
            continue
        try:
            live.append(allocator.allocate(nbytes, stream))
            trace.append(live[-1])
        except OutOfMemory:
            trace.append(-1)
        check(allocator)
    return trace


def check(allocator: CachingAllocator) -> None:
    segments = allocator.snapshot()
    end = 0
    for segment in segments:
        assert segment.address >= end
        end = segment.address
        for block in segment.blocks:
            assert block.address == end
            assert block.size > 0
            assert block.size % 512 == 0
            assert block.requested_size <= block.size
            end += block.size
        states = [block.state for block in segment.blocks]
        assert ("inactive", "inactive") not in list(pairwise(states)), "free neighbours were not merged"
    assert sum(segment.total_size for segment in segments) == allocator.reserved_bytes
    assert sum(segment.allocated_size for segment in segments) == allocator.active_bytes
    assert allocator.requested_bytes <= allocator.active_bytes <= allocator.reserved_bytes
    assert allocator.reserved_bytes <= allocator.driver.capacity_bytes


@settings(max_examples=120, deadline=None)
@given(STEPS, SETTINGS)
def test_blocks_tile_their_segments_and_never_overlap(
    steps: list[tuple[int, int, int]], options: AllocatorSettings
) -> None:
    play(CachingAllocator(300 * MIB, settings=options), steps)


@settings(max_examples=60, deadline=None)
@given(STEPS, SETTINGS)
def test_the_same_requests_give_the_same_addresses(
    steps: list[tuple[int, int, int]], options: AllocatorSettings
) -> None:
    first = play(CachingAllocator(300 * MIB, settings=options), steps)
    assert play(CachingAllocator(300 * MIB, settings=options), steps) == first


@settings(max_examples=60, deadline=None)
@given(STEPS, SETTINGS)
def test_nothing_is_left_when_all_is_freed_and_the_cache_emptied(
    steps: list[tuple[int, int, int]], options: AllocatorSettings
) -> None:
    allocator = CachingAllocator(1 << 40, settings=options)
    live = [allocator.allocate(nbytes, stream) for nbytes, stream, _ in steps]
    random.Random(len(steps)).shuffle(live)
    for address in live:
        allocator.free(address)
        check(allocator)
    assert allocator.active_bytes == 0
    allocator.empty_cache()
    assert allocator.reserved_bytes == 0
    assert allocator.snapshot() == ()


@settings(max_examples=200, deadline=None)
@given(STEPS, st.sampled_from([60 * MIB, 200 * MIB, 1 << 40]))
def test_equal_to_the_slow_reference(steps: list[tuple[int, int, int]], capacity: int) -> None:
    allocator, reference = CachingAllocator(capacity), ReferenceAllocator(capacity)
    live: list[tuple[int, int]] = []
    for owner, (nbytes, stream, choice) in enumerate(steps):
        if choice < 4 and live:
            address, old = live.pop(choice % len(live))
            allocator.free(address)
            reference.free(old)
        else:
            try:
                reference.allocate(owner, nbytes, stream)
            except NoMemory:
                with pytest.raises(OutOfMemory):
                    allocator.allocate(nbytes, stream)
            else:
                live.append((allocator.allocate(nbytes, stream), owner))
        assert allocator.active_bytes == reference.active
        assert allocator.reserved_bytes == reference.reserved
        assert allocator.retries == reference.retries
    by_address = [owner for _, owner in sorted(live)]
    assert by_address == sorted(by_address, key=reference.where)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_expandable_segments_never_reserve_beyond_whole_pages_of_what_was_alive(
    steps: list[tuple[int, int, int]],
) -> None:
    """On one stream, with nothing freed, waste is less than one page a pool."""
    allocator = CachingAllocator(1 << 40, settings=AllocatorSettings(expandable_segments=True))
    for nbytes, _, _ in steps:
        allocator.allocate(nbytes)
    assert allocator.reserved_bytes - allocator.active_bytes < 22 * MIB
