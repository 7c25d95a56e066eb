"""Gathers, scatters, sorts and scans.

* embedding (gather of rows) and scatter: every row starts on its own sector, so short rows move more bytes
  than they hold: ⌈row ÷ 32⌉ × 32. The read of the destination by atomics is counted by the work.
* rows narrower than a sector (single elements: pair lists, meshes) are another kernel, one thread an element: what
  is read and written in order streams, and every element touches a sector of the table, twice to add. Sectors come
  from the level-2 cache as far as the table fits there, at ``RANDOM_SHARE`` of its streaming rate:
  time = floor + max(streamed bytes ÷ bandwidth, sectors ÷ (hit: share × cache, miss: bandwidth)). Nobody publishes
  such tables; the share is an assumption of half, and shapes outside the fitted range say ``analytic``.
* sort and top-k: a radix sort passes over keys and values once per 8 bits of key, reading and writing;
  rows short enough for one block (``block_sort``) take a single pass.
* scan: one pass, decoupled look-back.

Formula: ``stream.py`` on those bytes.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Limit, Times, largest
from windtunnel.cost.stream import times as stream_times
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip

SECTOR_BYTES = 32.0
"""Smallest unit of device memory traffic (NVIDIA CUDA C++ best practices guide, memory coalescing)."""

BLOCK_SORT_COLUMNS = 4096
"""Longest row that one block sorts in shared memory."""

RADIX_BITS = 8

RANDOM_SHARE = 0.5
"""Of the cache's streaming rate that scattered sectors reach, by assumption."""
STREAMED_SHARE = 0.9
"""Of the memory bandwidth that reading and writing in order reaches."""
RESIDENT = 0.8
"""Part of the cache that a table can hold while indices and results stream past it."""


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of embedding, scatter, sort or scan works; dims rows, columns."""
    if batch.family is Family.SORT:
        return stream_times(batch, chip, fit, extra_bytes=_extra_sort_bytes(batch))
    if batch.family is Family.SCAN:
        return stream_times(batch, chip, fit)
    times = stream_times(batch, chip, fit, extra_bytes=_extra_sector_bytes(batch))
    narrow = (_row_bytes(batch) < SECTOR_BYTES) & (batch.dim("table_bytes") > 0)
    if not narrow.any():
        return times
    single = _narrow_times(batch, chip)
    return Times(np.where(narrow, single.seconds, times.seconds), np.where(narrow, single.limit, times.limit))


def _narrow_times(batch: Batch, chip: Chip) -> Times:
    """Rows of less than a sector, one thread each."""
    memory_rate = STREAMED_SHARE * chip.memory_bytes_per_s.value
    touched = 2.0 if batch.variant == "add" else 1.0
    sectors = SECTOR_BYTES * touched * np.maximum(batch.dim("rows", 1), 1.0)
    hit = 1.0 / (1.0 + (batch.dim("table_bytes") / (RESIDENT * chip.l2_bytes.value)) ** 2)
    near = hit * sectors / (RANDOM_SHARE * chip.l2_bytes_per_s.value)
    far = (1.0 - hit) * sectors / memory_rate
    fixed = np.maximum(batch.kernels, 1.0) * chip.kernel_floor_s.value
    streamed = batch.bytes_moved / memory_rate
    return largest(((Limit.MEMORY, np.maximum(streamed, far)), (Limit.CACHE, near + far)), fixed)


def _row_bytes(batch: Batch) -> Floats:
    return np.asarray(batch.bytes_written / np.maximum(batch.dim("rows", 1), 1.0))


def _extra_sector_bytes(batch: Batch) -> Floats:
    rows = np.maximum(batch.dim("rows", 1), 1.0)
    row_bytes = _row_bytes(batch)
    rounded = np.ceil(row_bytes / SECTOR_BYTES) * SECTOR_BYTES
    return np.asarray((rounded - row_bytes) * rows)


def _extra_sort_bytes(batch: Batch) -> Floats:
    rows, columns = np.maximum(batch.dim("rows", 1), 1.0), np.maximum(batch.dim("columns", 1), 1.0)
    key_bytes = np.minimum(batch.bytes_read / (rows * columns), 8.0)
    passes = np.where(columns <= BLOCK_SORT_COLUMNS, 1.0, np.ceil(8.0 * key_bytes / RADIX_BITS))
    return np.asarray((passes - 1.0) * 2.0 * (key_bytes + 8.0) * rows * columns)  # keys and 64-bit indices
