"""Kernels that stream tensors through the vector units: pointwise, norm, softmax, reduction, random, copy,
optimizer. One formula, one set of parameters per family:

    time = kernels × floor ÷ clock + |memory, bytes ÷ (move × multiprocessors × clock), vector, lanes|
    memory = memory_path.py;  vector = vector FLOPs ÷ (vector × peak);  |…| the norm of order SHARP
    lanes  = ⌈lanes ÷ multiprocessors⌉ × lane ÷ clock

``move``, bytes a clock and multiprocessor, is what the kernel's instructions allow. It belongs to the kernel and
carries over between chips, as ``issue`` does for products (``peaks.py``), and so do floors in clocks: kernels
that move 4 to 10 bytes a clock run at the same rate a clock on A100, H100, B200 and H20, whatever the memory
could give. ``lane`` is the cost of one block of a kernel that gives every sequence and channel its own block.
What is special about each family stands in ``norm.py``, ``pointwise.py`` and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Limit, Times
from windtunnel.cost.memory_path import memory_seconds
from windtunnel.cost.peaks import vector_peak
from windtunnel.specs.schema import Chip

SHARP = 4.0
"""Order of the norm: instructions and memory overlap, and cost a little where they are equal."""


@dataclass(frozen=True, slots=True)
class StreamParameters:
    """Bytes a clock (move), fractions of memory bandwidth and vector peak, clocks of one kernel's floor."""

    move: float
    dram: float
    vector: float
    floor_clocks: float

    @classmethod
    def of(cls, fit: Fit) -> StreamParameters:
        """The parameters of a fit."""
        return cls(*(fit.value(name) for name in cls.__slots__))


def times(batch: Batch, chip: Chip, fit: Fit, extra_bytes: Floats | float = 0.0) -> Times:
    """Times of streaming kernels; ``extra_bytes`` is traffic beyond each input and output once."""
    p = StreamParameters.of(fit)
    clock, units = chip.clock_hz.value, chip.multiprocessors.value
    moved = batch.bytes_moved + extra_bytes
    memory = memory_seconds(moved, chip, dram=p.dram)
    instructions = moved / (p.move * units * clock)
    vector = batch.vector_flops / (p.vector * vector_peak(chip, batch.precision).value)
    lane_s = fit.value("lane_clocks", 0.0) / clock * np.ceil(batch.dim("lanes") / units)
    body = (memory**SHARP + instructions**SHARP + vector**SHARP + lane_s**SHARP) ** (1.0 / SHARP)
    fixed = np.maximum(batch.kernels, 1.0) * p.floor_clocks / clock + fit.value("host_s", 0.0)
    streamed = np.maximum(memory, instructions)
    limit = np.where(vector > streamed, int(Limit.VECTOR), int(Limit.MEMORY))
    return Times(body + fixed, np.where(body >= fixed, limit, int(Limit.LATENCY)))
