"""Pointwise kernels, random numbers and on-device copies: one read of each input, one write of each output.

Formula: ``stream.py``. Transposing copies (variant ``transpose``) read or write one side in sectors of 32
bytes instead of full lines, which ``parameters/copy.json`` prices as lower bandwidth.
"""

from __future__ import annotations

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Times
from windtunnel.cost.stream import times as stream_times
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of pointwise works; dims elements, ops."""
    return stream_times(batch, chip, fit)
