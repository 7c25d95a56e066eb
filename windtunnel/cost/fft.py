"""Fourier transforms: passes over memory.

A block transforms up to ``BLOCK_POINTS`` points in shared memory; longer transforms take a pass over memory
for each such factor. Arithmetic is that of the work (5 N log2 N), on vector units. Formula: ``stream.py``.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Times
from windtunnel.cost.stream import times as stream_times
from windtunnel.specs.schema import Chip

BLOCK_POINTS = 4096.0


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of FFT works; dims batch, length; ``kernels`` counts the transformed axes."""
    length = np.maximum(batch.dim("length", 2), 2.0)
    passes = np.maximum(np.ceil(np.log(length) / np.log(BLOCK_POINTS)), 1.0) * np.maximum(batch.kernels, 1.0)
    return stream_times(batch, chip, fit, extra_bytes=(passes - 1.0) * batch.bytes_moved)
