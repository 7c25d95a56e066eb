"""Convolutions as implicit matrix products: m = pixels of all images, n = output channels, k = window × input
channels.

The tile and wave formula of ``gemm.py`` with the gather of input patches through the cache: the k loop walks
the window, so the main loop runs at ``compute`` of a dense product's efficiency. Depthwise convolutions
(variant ``depthwise``) have nothing for matrix units: their multiply-adds run on the vector units.
"""

from __future__ import annotations

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.gemm import GemmParameters, product_times, products
from windtunnel.cost.kernel_time import Limit, Times, largest
from windtunnel.cost.memory_path import memory_seconds
from windtunnel.cost.peaks import vector_peak
from windtunnel.specs.schema import Chip

DEPTHWISE = 0.5
"""Fraction of the vector peak of depthwise convolutions: an assumption, they are bound by memory."""


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of convolution works; dims m, n, k, batch (batch: groups)."""
    p = GemmParameters.of(fit)
    if batch.variant == "depthwise":
        arithmetic = (batch.flops + batch.vector_flops) / (
            DEPTHWISE * vector_peak(chip, batch.precision).value
        )
        memory = memory_seconds(batch.bytes_moved, chip, dram=p.dram)
        return largest(
            ((Limit.VECTOR, arithmetic), (Limit.MEMORY, memory)), p.floor_clocks / chip.clock_hz.value
        )
    return product_times(products(batch), batch.precision, chip, p)
