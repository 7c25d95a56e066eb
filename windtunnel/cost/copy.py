"""Copies: on the device (a pointwise stream), and between host and device over PCIe.

on device: ``stream.py``
PCIe:      floor + bytes ÷ (rate × PCIe bandwidth);  variants ``pinned`` and ``pageable``
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Limit, Times
from windtunnel.cost.stream import times as stream_times
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of copy and host-copy works."""
    if batch.family is Family.COPY:
        return stream_times(batch, chip, fit)
    payload = np.maximum(batch.bytes_read, batch.bytes_written)  # the side on the device
    seconds = payload / (fit.value("rate") * chip.pcie_bytes_per_s.value)
    fixed = fit.value("floor_s")
    limit = np.where(seconds >= fixed, int(Limit.LINK), int(Limit.LATENCY))
    return Times(seconds + fixed, limit)
