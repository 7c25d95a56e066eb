"""Bytes to seconds: device memory, and the level-2 cache for what stays in it.

    time = max(bytes × miss ÷ (dram × memory bandwidth), bytes ÷ (CACHE_SHARE × cache bandwidth))
    miss = 1 − 1 ÷ (1 + (footprint ÷ cache size)^8)

The footprint is what is touched before the same bytes come round again: the tensors of a kernel that reads what
the kernel before has written. Tables of kernels repeated in a loop show the change from cache to memory
within a factor of two of the cache's size, on chips of 40 to 126 MB.

The ramp from small to large transfers is the kernel floor that every family adds, and what multiprocessors draw
(``move``, ``stream``: bytes a clock); both belong to the families.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.specs.schema import Chip

CACHE_SHARE = 0.65
"""Fraction of a cache's bandwidth that kernels reach: half to three quarters of 5,120 bytes a clock where measured."""


def missed(footprint: Floats, chip: Chip) -> Floats:
    """Share of the bytes that come from memory when ``footprint`` bytes are touched between two uses."""
    over = np.minimum(footprint / chip.l2_bytes.value, 1e6)
    square = over * over
    fourth = square * square
    return np.asarray(1.0 - 1.0 / (1.0 + fourth * fourth))


def memory_seconds(
    bytes_moved: Floats, chip: Chip, *, dram: float, footprint: Floats | None = None, cold: bool = False
) -> Floats:
    """Seconds to move ``bytes_moved``.

    Args:
        dram: fraction of the data sheet bandwidth that kernels reach.
        footprint: bytes touched between two uses; ``bytes_moved`` where absent.
        cold: nothing is in the cache, such as weights and caches of other layers.
    """
    slow = bytes_moved / (dram * chip.memory_bytes_per_s.value)
    if cold:
        return slow
    fast = bytes_moved / (CACHE_SHARE * chip.l2_bytes_per_s.value)
    return np.asarray(np.maximum(slow * missed(bytes_moved if footprint is None else footprint, chip), fast))
