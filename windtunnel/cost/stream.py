"""Kernels that stream tensors through the vector units: pointwise, norm, softmax, reduction, random, copy,
optimizer. One formula, one set of parameters per family:

    time = kernels × floor + max(bytes ÷ sustained, vector FLOPs ÷ (vector × peak))
    1 ÷ sustained = 1 ÷ (MEMORY_CEILING × bandwidth) + 1 ÷ (move × multiprocessors × clock)

``move``, bytes a clock and multiprocessor, is what the kernel's instructions allow; it belongs to the kernel and
carries over between chips, as ``issue`` does for products (``peaks.py``). Working sets that stay in the level-2
cache take the fast path of ``memory_path.py``. What is special about each family stands in ``norm.py``,
``pointwise.py`` and so on.

Fitted on A100 (pointwise, norm, embedding, softmax), H100 (short convolutions, copies) and S5000. Shapes left out,
weighted by time: pointwise 1 %, norm 4 %, embedding 3 %, softmax 3 % median.
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

MEMORY_CEILING = 0.94
"""Most of a data sheet bandwidth that streaming kernels sustain: refresh and turnarounds take the rest."""


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """Bytes a clock (move), fractions of the cache and of the vector peak, seconds of one kernel's floor."""

    move: float
    l2: float
    resident: float
    vector: float
    floor_s: float

    @classmethod
    def of(cls, fit: Fit) -> StreamParameters:
        """The parameters of a fit."""
        return cls(*(fit.value(name) for name in cls.__slots__))


def sustained_share(chip: Chip, move: float) -> float:
    """Fraction of the memory bandwidth that a kernel of ``move`` bytes a clock and multiprocessor sustains."""
    around = move * chip.multiprocessors.value * chip.clock_hz.value
    return 1.0 / (1.0 / MEMORY_CEILING + chip.memory_bytes_per_s.value / around)


def times(batch: Batch, chip: Chip, fit: Fit, extra_bytes: Floats | float = 0.0) -> Times:
    """Times of streaming kernels; ``extra_bytes`` is traffic beyond each input and output once."""
    p = StreamParameters.of(fit)
    memory = memory_seconds(
        batch.bytes_moved + extra_bytes,
        chip,
        dram=sustained_share(chip, p.move),
        l2=p.l2,
        resident=p.resident,
    )
    vector = batch.vector_flops / (p.vector * vector_peak(chip, batch.precision).value)
    fixed = np.maximum(batch.kernels, 1.0) * p.floor_s + fit.value("host_s", 0.0)
    return largest(((Limit.MEMORY, memory), (Limit.VECTOR, vector)), fixed)
