"""Optimizer steps: fused and multi-tensor kernels stream parameters, gradients and states once.

Formula: ``stream.py``; ``kernels`` of the work counts the launches (a multi-tensor kernel takes a few hundred
tensors at a time; for-loop optimizers record their pointwise operations one by one and never come here).
"""

from __future__ import annotations

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Times
from windtunnel.cost.stream import times as stream_times
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of optimizer works; dims elements, tensors."""
    return stream_times(batch, chip, fit)
