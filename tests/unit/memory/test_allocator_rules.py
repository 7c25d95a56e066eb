"""Cases worked out by hand from the rules of PyTorch's allocator."""

from __future__ import annotations

import pytest

from windtunnel.errors import WindtunnelError
from windtunnel.memory.allocator import CachingAllocator, segment_bytes
from windtunnel.memory.oom import OutOfMemory, format_size
from windtunnel.memory.settings import AllocatorSettings, parse_settings
from windtunnel.units import GIB, MIB

EXPANDABLE = AllocatorSettings(expandable_segments=True)


@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_segment_sizes(size: int, segment: int) -> None:
    assert segment_bytes(size) == segment
    allocator = CachingAllocator(GIB)
    allocator.allocate(size)
    assert allocator.reserved_bytes == segment


def test_requests_are_rounded_to_512_bytes() -> None:
    allocator = CachingAllocator(GIB)
    first, second = allocator.allocate(1), allocator.allocate(513)
    assert second - first == 512
    assert allocator.active_bytes == 512 + 1024
    assert allocator.requested_bytes == 514


def test_nothing_takes_no_memory() -> None:
    allocator = CachingAllocator(GIB)
    assert allocator.allocate(0) == 0
    allocator.free(0)
    assert allocator.reserved_bytes == 0


def test_a_large_remainder_of_up_to_1_mib_stays_with_its_block() -> None:
    allocator = CachingAllocator(GIB)
    allocator.allocate(11 * MIB)  # segment of 12 MiB: 1 MiB is left, which is not more than 1 MiB
    assert allocator.active_bytes == 12 * MIB
    allocator.allocate(13 * MIB - 512)  # segment of 14 MiB: 1 MiB + 512 is left and split off
    assert allocator.active_bytes == 25 * MIB - 512


def test_best_fit_takes_the_smallest_free_block_and_the_lowest_address() -> None:
    allocator = CachingAllocator(GIB)
    sizes = (40, 30, 50, 30)
    addresses = [allocator.allocate(size * MIB) for size in sizes]
    for address in addresses:
        allocator.free(address)
    assert allocator.allocate(29 * MIB + 512) == addresses[1]
    assert allocator.allocate(30 * MIB) == addresses[3]
    assert allocator.allocate(30 * MIB) == addresses[0]


def test_streams_do_not_share_cached_blocks() -> None:
    allocator = CachingAllocator(GIB)
    allocator.free(allocator.allocate(30 * MIB, stream=0))
    allocator.allocate(30 * MIB, stream=1)
    assert allocator.reserved_bytes == 60 * MIB


def test_cached_segments_are_returned_before_giving_up() -> None:
    allocator = CachingAllocator(100 * MIB)
    allocator.free(allocator.allocate(60 * MIB, stream=0))
    allocator.allocate(60 * MIB, stream=1)
    assert allocator.reserved_bytes == 60 * MIB
    assert allocator.retries == 1
    assert allocator.stats()["num_device_free"] == 1


def test_a_split_segment_cannot_be_returned() -> None:
    allocator = CachingAllocator(100 * MIB)
    big = allocator.allocate(60 * MIB)
    allocator.free(big)
    allocator.allocate(10 * MIB)  # splits the 60 MiB segment
    with pytest.raises(OutOfMemory) as caught:
        allocator.allocate(60 * MIB)
    assert caught.value.reserved_bytes == 60 * MIB
    assert caught.value.allocated_bytes == 10 * MIB
    assert caught.value.free_bytes == 40 * MIB
    assert allocator.stats()["inactive_split_bytes.all.current"] == 50 * MIB
    assert allocator.ooms == 1


def test_expandable_segments_fit_where_fixed_ones_fragment() -> None:
    allocator = CachingAllocator(100 * MIB, settings=EXPANDABLE)
    allocator.free(allocator.allocate(60 * MIB))
    allocator.allocate(10 * MIB)
    allocator.allocate(60 * MIB)
    assert allocator.active_bytes == 70 * MIB
    assert allocator.reserved_bytes == 80 * MIB  # pages of 20 MiB
    assert allocator.retries == 0


def test_expandable_pages_go_back_when_they_are_wholly_free() -> None:
    allocator = CachingAllocator(GIB, settings=EXPANDABLE)
    first = allocator.allocate(30 * MIB)
    allocator.allocate(30 * MIB)
    assert allocator.reserved_bytes == 60 * MIB
    allocator.free(first)
    allocator.empty_cache()  # [0, 20) is free and whole; [20, 40) still holds 10 MiB of the second
    assert allocator.reserved_bytes == 40 * MIB
    assert allocator.allocate(10 * MIB) == first + 20 * MIB


def test_expandable_growth_maps_the_lowest_hole_again() -> None:
    allocator = CachingAllocator(GIB, settings=EXPANDABLE)
    first = allocator.allocate(20 * MIB)
    allocator.allocate(20 * MIB)
    allocator.free(first)
    allocator.empty_cache()
    assert allocator.allocate(20 * MIB) == first


def test_blocks_above_the_split_limit_are_not_split() -> None:
    allocator = CachingAllocator(GIB, settings=AllocatorSettings(max_split_bytes=100 * MIB))
    big = allocator.allocate(200 * MIB)
    allocator.free(big)
    allocator.allocate(50 * MIB)  # a request below the limit may not take it
    assert allocator.reserved_bytes == 250 * MIB
    assert allocator.allocate(190 * MIB) == big  # within 20 MiB of its size
    assert allocator.active_bytes == 250 * MIB


def test_oversize_cached_blocks_are_returned_first() -> None:
    allocator = CachingAllocator(300 * MIB, settings=AllocatorSettings(max_split_bytes=100 * MIB))
    small = allocator.allocate(40 * MIB)
    allocator.free(allocator.allocate(200 * MIB))
    allocator.free(small)
    allocator.allocate(90 * MIB)
    assert allocator.retries == 0
    assert allocator.reserved_bytes == 130 * MIB


def test_rounding_to_divisions_of_a_power_of_two() -> None:
    # PyTorch's documented example: 1200 with 4 divisions becomes 1280, between 1024 and 2048 in steps of 256
    allocator = CachingAllocator(GIB, settings=AllocatorSettings(power2_divisions=(4,) * 16))
    assert allocator.block_bytes(1200 * 512) == 1280 * 512
    assert allocator.block_bytes(1024 * 512) == 1024 * 512
    assert allocator.block_bytes(1200) == 1536  # below 512 × divisions: plain rounding


def test_the_fraction_caps_reserved_memory() -> None:
    allocator = CachingAllocator(100 * MIB)
    allocator.set_fraction(0.5)
    with pytest.raises(OutOfMemory) as caught:
        allocator.allocate(60 * MIB)
    assert "50.00 MiB allowed; " in caught.value.message()


def test_statistics_have_pytorchs_names() -> None:
    allocator = CachingAllocator(GIB)
    large = allocator.allocate(30 * MIB)
    allocator.allocate(100)
    allocator.free(large)
    allocator.reset_accumulated()
    allocator.reset_peaks()
    allocator.allocate(600)
    stats = allocator.stats()
    assert stats["allocated_bytes.all.current"] == 512 + 1024
    assert stats["allocated_bytes.all.allocated"] == 1024
    assert stats["allocated_bytes.all.peak"] == 512 + 1024
    assert stats["reserved_bytes.large_pool.current"] == 30 * MIB
    assert stats["segment.all.current"] == 2
    assert stats["active.small_pool.current"] == 2
    assert stats["requested_bytes.small_pool.current"] == 700


def test_a_block_is_freed_once() -> None:
    allocator = CachingAllocator(GIB)
    address = allocator.allocate(512)
    allocator.free(address)
    with pytest.raises(KeyError):
        allocator.free(address)


def test_the_message_reads_like_pytorchs() -> None:
    allocator = CachingAllocator(79 * GIB, total_bytes=80 * GIB)
    allocator.allocate(70 * GIB)
    with pytest.raises(OutOfMemory) as caught:
        allocator.allocate(10 * GIB)
    assert caught.value.message().startswith(
        "CUDA out of memory. Tried to allocate 10.00 GiB. GPU 0 has a total capacity of 80.00 GiB of which "
        "9.00 GiB is free. Including non-PyTorch memory, this process has 71.00 GiB memory in use. Of the "
        "allocated memory 70.00 GiB is allocated by PyTorch, and 0 bytes is reserved by PyTorch but "
        "unallocated."
    )


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(1024, "1024 bytes"), (1536, "1.50 KiB"), (20 * MIB, "20.00 MiB"), (3 * GIB, "3.00 GiB")],
)
def test_sizes_in_messages(nbytes: int, text: str) -> None:
    assert format_size(nbytes) == text


def test_settings_from_text() -> None:
    parsed = parse_settings(
        "expandable_segments:True, max_split_size_mb:512,garbage_collection_threshold:0.8"
    )
    assert parsed == AllocatorSettings(expandable_segments=True, max_split_bytes=512 * MIB)
    spread = parse_settings("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]").power2_divisions
    assert spread == (1,) * 9 + (2, 4) + (8,) * 5
    assert parse_settings("roundup_power2_divisions:4").power2_divisions == (4,) * 16


@pytest.mark.parametrize(
    "text",
    [
        "expandable_segments:maybe",
        "max_split_size_mb:1",
        "no_such:1",
        "gibberish",
        "roundup_power2_divisions:3",
    ],
)
def test_settings_that_pytorch_refuses(text: str) -> None:
    with pytest.raises(WindtunnelError, match="allocator option") as caught:
        parse_settings(text)
    assert caught.value.code == "E301"
