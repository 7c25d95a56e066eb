"""What a cost model answers: the time of one kernel with its interval, and the same for many at once.

Not here: how the time is found (one file per family), nor which parameters were used (``fit.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from windtunnel.estimate import Source

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Limit(IntEnum):
    """What a kernel's time is made of in the main."""

    NOTHING = 0  # no kernel
    COMPUTE = 1  # matrix units
    MEMORY = 2  # device memory
    CACHE = 3  # level-2 cache
    VECTOR = 4  # vector and special-function units
    LATENCY = 5  # dependent steps, pipeline fill, kernel floor
    LINK = 6  # PCIe


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Device time of one operation.

    Attributes:
        seconds: best estimate. low_s, high_s: 80 % interval around it.
        limit: what bounds it: ``compute``, ``memory``, ``cache``, ``vector``, ``latency``, ``link``.
        formula: the formula in words, for ``explain``.
    """

    seconds: float
    low_s: float
    high_s: float
    source: Source
    limit: str
    formula: str


@dataclass(frozen=True, slots=True)
class Times:
    """Times of many kernels of one family, in seconds, and the ``Limit`` of each."""

    seconds: Floats
    limit: Ints


def largest(terms: tuple[tuple[Limit, Floats], ...], fixed_s: Floats | float) -> Times:
    """The largest of several times plus a fixed one; ``LATENCY`` where the fixed part is larger."""
    stacked = np.stack([np.broadcast_to(term, terms[0][1].shape) for _, term in terms])
    peak = stacked.max(axis=0)
    codes = np.array([int(limit) for limit, _ in terms], dtype=np.int64)
    limit = codes[stacked.argmax(axis=0)]
    return Times(peak + fixed_s, np.where(peak >= fixed_s, limit, int(Limit.LATENCY)))
