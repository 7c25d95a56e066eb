"""Gathers, scatters, sorts and scans.

* embedding (gather of rows) and scatter: every row starts on its own sector, so short rows move more bytes
  than they hold: ⌈row ÷ 32⌉ × 32. The read of the destination by atomics is counted by the work.
* sort and top-k: a radix sort passes over keys and values once per 8 bits of key, reading and writing;
  rows short enough for one block (``block_sort``) take a single pass.
* scan: one pass, decoupled look-back.

Formula: ``stream.py`` on those bytes.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Times
from windtunnel.cost.stream import times as stream_times
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip

SECTOR_BYTES = 32.0
"""Smallest unit of device memory traffic (NVIDIA CUDA C++ best practices guide, memory coalescing)."""

BLOCK_SORT_COLUMNS = 4096
"""Longest row that one block sorts in shared memory."""

RADIX_BITS = 8


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of embedding, scatter, sort or scan works; dims rows, columns."""
    if batch.family is Family.SORT:
        return stream_times(batch, chip, fit, extra_bytes=_extra_sort_bytes(batch))
    if batch.family is Family.SCAN:
        return stream_times(batch, chip, fit)
    return stream_times(batch, chip, fit, extra_bytes=_extra_sector_bytes(batch))


def _extra_sector_bytes(batch: Batch) -> Floats:
    rows = np.maximum(batch.dim("rows", 1), 1.0)
    row_bytes = batch.bytes_written / rows
    rounded = np.ceil(row_bytes / SECTOR_BYTES) * SECTOR_BYTES
    return np.asarray((rounded - row_bytes) * rows)


def _extra_sort_bytes(batch: Batch) -> Floats:
    rows, columns = np.maximum(batch.dim("rows", 1), 1.0), np.maximum(batch.dim("columns", 1), 1.0)
    key_bytes = np.minimum(batch.bytes_read / (rows * columns), 8.0)
    passes = np.where(columns <= BLOCK_SORT_COLUMNS, 1.0, np.ceil(8.0 * key_bytes / RADIX_BITS))
    return np.asarray((passes - 1.0) * 2.0 * (key_bytes + 8.0) * rows * columns)  # keys and 64-bit indices
