"""Layer norm and RMS norm, forward and backward: dims rows, columns.

Formula: ``stream.py`` with a larger floor than pointwise (a row is reduced before it is written). Few rows
leave multiprocessors idle: a row is handled by one block, which moves ``single`` bytes a clock.

    time ≥ floor + bytes of a row ÷ (single × clock)
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Limit, Times
from windtunnel.cost.stream import times as stream_times
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of row-wise works: the streaming time, or the time of one row's block where rows are few."""
    base = stream_times(batch, chip, fit)
    rows = batch.dim("rows", np.inf)  # unknown: many
    clock = chip.clock_hz.value
    row_s = batch.bytes_moved / np.maximum(rows, 1.0) / (fit.value("single") * clock)
    floor_s = np.maximum(batch.kernels, 1.0) * fit.value("floor_clocks") / clock
    one_row = row_s + floor_s + fit.value("host_s", 0.0)
    slower = one_row > base.seconds
    return Times(np.where(slower, one_row, base.seconds), np.where(slower, int(Limit.LATENCY), base.limit))
