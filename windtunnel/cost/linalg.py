"""Factorisations and solves (Cholesky, LU, QR, eigenvalues, SVD, triangular), FP32 and FP64.

Blocked algorithms: panels in sequence, each a chain of dependent columns, and the rest as vector arithmetic.

    time = floor + kernels × panel + max(vector FLOPs ÷ (vector × peak), bytes ÷ (dram × bandwidth))

``panel`` is the latency of one panel; ``kernels`` of the work counts panels. Matrices of a batch run side by
side, so panels count once.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Limit, Times, largest
from windtunnel.cost.memory_path import memory_seconds
from windtunnel.cost.peaks import vector_peak
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of linear algebra works; dims m, n, k, batch."""
    arithmetic = (batch.flops + batch.vector_flops) / (
        fit.value("vector") * vector_peak(chip, batch.precision).value
    )
    memory = memory_seconds(batch.bytes_moved, chip, dram=fit.value("dram"))
    fixed = (
        fit.value("floor_clocks") + np.maximum(batch.kernels, 1.0) * fit.value("panel_clocks")
    ) / chip.clock_hz.value
    return largest(((Limit.VECTOR, arithmetic), (Limit.MEMORY, memory)), fixed)
