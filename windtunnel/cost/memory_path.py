"""Bytes to seconds: device memory with a ramp, and the fast path of what stays in the level-2 cache.

    time = bytes × ((1 − hit) ÷ (dram × memory bandwidth) + hit ÷ (l2 × cache bandwidth))
    hit  = 1 ÷ (1 + (bytes ÷ (resident × cache size))²)

The ramp from small to large transfers is the kernel floor that every family adds: n bytes take
floor + n ÷ bandwidth, which is the usual half-bandwidth-size curve.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.specs.schema import Chip


def memory_seconds(
    bytes_moved: Floats, chip: Chip, *, dram: float, l2: float = 0.0, resident: float = 0.0
) -> Floats:
    """Seconds to move ``bytes_moved``.

    Args:
        dram, l2: fractions of the data sheet bandwidths that kernels reach.
        resident: fraction of the cache that a working set can hold from one kernel to the next; 0 turns the
            fast path off (cold caches).
    """
    slow = bytes_moved / (dram * chip.memory_bytes_per_s.value)
    if resident <= 0 or l2 <= 0:
        return slow
    fast = np.minimum(slow, bytes_moved / (l2 * chip.l2_bytes_per_s.value))
    hit = 1.0 / (1.0 + (bytes_moved / (resident * chip.l2_bytes.value)) ** 2)
    return np.asarray((1.0 - hit) * slow + hit * fast)
