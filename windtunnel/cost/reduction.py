"""Reductions (sum, mean, max, norms of tensors): dims rows, columns.

Formula: ``stream.py``. A reduction to few rows takes a second pass over partial results, which costs one more
kernel floor when a single block cannot hold a row's partials.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Times
from windtunnel.cost.stream import times as stream_times
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of reduction works."""
    base = stream_times(batch, chip, fit)
    few = batch.dim("rows", 1) < chip.multiprocessors.value
    long = batch.bytes_read > chip.shared_memory_bytes.value
    return Times(
        base.seconds + np.where(few & long, fit.value("floor_clocks") / chip.clock_hz.value, 0.0), base.limit
    )
