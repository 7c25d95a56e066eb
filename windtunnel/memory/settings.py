"""Options of PyTorch's caching allocator, and the text form of ``PYTORCH_CUDA_ALLOC_CONF``.

Only options that change where memory goes are kept; those that change how the driver is called are read
and dropped. Names and defaults: c10/core/AllocatorConfig.h and c10/cuda/CUDAAllocatorConfig.h.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.units import MIB

POWER2_BUCKETS = 16
"""Sizes of [1 MiB, 64 GiB) by powers of two, each with its own number of divisions."""

_WITHOUT_EFFECT = frozenset(
    "backend release_lock_on_cudamalloc pinned_use_cuda_host_register pinned_num_register_threads "
    "pinned_use_background_threads pinned_reserve_segment_size_mb graph_capture_record_stream_reuse "
    "garbage_collection_threshold".split()
)

_OPTION = re.compile(r"\s*([a-z0-9_]+)\s*:\s*(\[[^\]]*\]|[^,\s]+)\s*,?")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorSettings:
    """How the allocator rounds, splits and grows.

    Attributes:
        max_split_bytes: blocks of this size and above are never split; None splits all.
        max_non_split_rounding_bytes: how much larger than asked an unsplittable block may be.
        power2_divisions: for each bucket of sizes, into how many parts to divide a power of two when
            rounding; 0 or 1 rounds to 512 bytes. Empty: no such rounding.
    """

    expandable_segments: bool = False
    max_split_bytes: int | None = None
    max_non_split_rounding_bytes: int = 20 * MIB
    power2_divisions: tuple[int, ...] = ()

    def divisions(self, nbytes: int) -> int:
        """The number of divisions for a request of ``nbytes``."""
        if not self.power2_divisions:
            return 0
        bucket = nbytes.bit_length() - 1 - 20
        return self.power2_divisions[min(max(bucket, 0), POWER2_BUCKETS - 1)]


def parse_settings(text: str) -> AllocatorSettings:
    """``expandable_segments:True,max_split_size_mb:512`` → settings.

    Raises:
        WindtunnelError: E301 on an option or value that PyTorch would refuse as well.
    """
    settings = dict(_OPTION.findall(text))
    leftover = _OPTION.sub("", text).strip()
    if leftover:
        raise _refused(text, leftover)
    expandable, split, rounding = False, None, 20 * MIB
    divisions: tuple[int, ...] = ()
    for name, value in settings.items():
        if name == "expandable_segments":
            expandable = _truth(text, value)
        elif name == "max_split_size_mb":
            split = _mebibytes(text, value)
        elif name == "max_non_split_rounding_mb":
            rounding = _mebibytes(text, value)
        elif name == "roundup_power2_divisions":
            divisions = _divisions(text, value)
        elif name not in _WITHOUT_EFFECT:
            raise _refused(text, name)
    return AllocatorSettings(
        expandable_segments=expandable,
        max_split_bytes=split,
        max_non_split_rounding_bytes=rounding,
        power2_divisions=divisions,
    )


def _truth(text: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise _refused(text, value)
    return value.lower() == "true"


def _mebibytes(text: str, value: str) -> int:
    if not value.isdigit() or int(value) < 20:  # PyTorch: above the large segment of 20 MiB
        raise _refused(text, value)
    return int(value) * MIB


def _divisions(text: str, value: str) -> tuple[int, ...]:
    if value.isdigit():
        return (_power_of_two(text, value),) * POWER2_BUCKETS
    pairs = [entry.split(":") for entry in value.strip("[] ").split(",")]
    return _spread(text, pairs)


def _spread(text: str, pairs: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """``[256:1,512:2,>:8]``: sizes in MiB; below the first key its value, ``>`` all after the last."""
    buckets = [0] * POWER2_BUCKETS
    last = 0
    for position, pair in enumerate(pairs):
        if len(pair) != 2:
            raise _refused(text, ":".join(pair))
        count = _power_of_two(text, pair[1].strip())
        key = pair[0].strip()
        if key == ">":
            buckets[last:] = [count] * (POWER2_BUCKETS - last)
            break
        if not key.isdigit() or int(key) < 1:
            raise _refused(text, key)
        bucket = min(int(key).bit_length() - 1, POWER2_BUCKETS - 1)
        if position == 0:
            buckets[:bucket] = [count] * bucket
        buckets[bucket] = count
        last = bucket + 1
    return tuple(buckets)


def _power_of_two(text: str, value: str) -> int:
    if not value.isdigit() or int(value) & (int(value) - 1):
        raise _refused(text, value)
    return int(value)


def _refused(text: str, part: str) -> WindtunnelError:
    return WindtunnelError(
        "E301",
        f"allocator option `{part}` is not one that PyTorch knows",
        hint="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True,max_split_size_mb:512",
        values={"PYTORCH_CUDA_ALLOC_CONF": text},
    )
