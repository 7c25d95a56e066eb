"""Kernels that stream tensors through the vector units: pointwise, norm, softmax, reduction, random, copy,
optimizer. One formula, one set of parameters per family:

    time = kernels × floor + max(bytes ÷ (dram × bandwidth), vector FLOPs ÷ (vector × peak))

with the fast path of ``memory_path`` for working sets that stay in the level-2 cache. ``step`` seconds per
``columns`` beyond one block's reach model the row reduction of norms and softmax. The files ``norm.py``,
``pointwise.py`` and so on say what is special about each family.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Limit, Times, largest
from windtunnel.cost.memory_path import memory_seconds
from windtunnel.cost.peaks import vector_peak
from windtunnel.specs.schema import Chip


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """Fractions of data sheet bandwidths and of the vector peak; seconds of one kernel's floor."""

    dram: float
    l2: float
    resident: float
    vector: float
    floor_s: float

    @classmethod
    def of(cls, fit: Fit) -> StreamParameters:
        """The parameters of a fit."""
        return cls(*(fit.value(name) for name in cls.__slots__))


def times(batch: Batch, chip: Chip, fit: Fit, extra_bytes: Floats | float = 0.0) -> Times:
    """Times of streaming kernels; ``extra_bytes`` is traffic beyond each input and output once."""
    p = StreamParameters.of(fit)
    memory = memory_seconds(batch.bytes_moved + extra_bytes, chip, dram=p.dram, l2=p.l2, resident=p.resident)
    vector = batch.vector_flops / (p.vector * vector_peak(chip, batch.precision).value)
    fixed = np.maximum(batch.kernels, 1.0) * p.floor_s + fit.value("host_s", 0.0)
    return largest(((Limit.MEMORY, memory), (Limit.VECTOR, vector)), fixed)
