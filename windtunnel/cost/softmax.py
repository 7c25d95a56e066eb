"""Softmax and log-softmax over rows: dims rows, columns. The formula of ``norm.py`` with its own parameters.

Rows too long for registers and shared memory of one multiprocessor are read twice.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Times
from windtunnel.cost.norm import times as norm_times
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of softmax works."""
    rows = np.maximum(batch.dim("rows", 1), 1.0)
    twice = batch.bytes_read / rows > chip.shared_memory_bytes.value
    bytes_read = np.where(twice, 2.0, 1.0) * batch.bytes_read
    return norm_times(batch.with_bytes(bytes_read, batch.bytes_written), chip, fit)
