"""Dense matrix products, all precisions: what a vendor library does with C[m, n] = A[m, k] · B[k, n].

The library picks, from a few tile shapes and split-K factors, the fastest. For one choice (tm × tn, s):

    tiles    = batch × ⌈m ÷ tm⌉ × ⌈n ÷ tn⌉ × s              waves = ⌈tiles ÷ multiprocessors⌉
    compute  = waves × ⌈k ÷ s⌉ × 2 × tm × tn × feed ÷ (compute × peak ÷ multiprocessors)
    feed     = 1 + edge × (1 ÷ tm + 1 ÷ tn)
    cache    = tiles × ⌈k ÷ s⌉ × (tm + tn) × element ÷ (l2 × cache bandwidth)
    stream   = waves × ⌈k ÷ s⌉ × (min(tm, m) + min(tn, n)) × element ÷ (stream × bandwidth ÷ multiprocessors)
    memory   = bytes ÷ (dram × bandwidth)                    (with a fast path for what fits the cache)
    time     = floor + waves × fill + max(compute, cache, stream, memory) [+ split-K reduction]

``edge`` is the cost of feeding small tiles; ``fill`` is one tile's prologue and epilogue; ``stream`` is how
much more than its fair share of memory bandwidth one multiprocessor can draw when few are busy. Time never
falls when m, n, k or batch grow. Parameters, ranges and errors on shapes left out: ``parameters/gemm.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Limit, Times
from windtunnel.cost.memory_path import memory_seconds
from windtunnel.cost.peaks import matrix_peak
from windtunnel.specs.schema import Chip

TILES = (
    (256, 128), (128, 256), (128, 128), (128, 64), (64, 256), (64, 128), (64, 64), (32, 128), (16, 64),
)  # fmt: skip
"""(rows, columns) of output tiles that libraries ship for tensor cores."""

SPLITS = (1, 2, 4, 8)
"""Split-K factors."""

TILE_K = 64
"""K is walked in steps of this many elements."""


@dataclass(frozen=True, slots=True)
class GemmParameters:
    """Fractions of data sheet quantities, rows (edge) and seconds (fill, floor); see the module."""

    compute: float
    edge: float
    l2: float
    dram: float
    stream: float
    fill_s: float
    floor_s: float
    resident: float

    @classmethod
    def of(cls, fit: Fit) -> GemmParameters:
        """The parameters of a fit."""
        return cls(*(fit.value(name) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Products:
    """Shapes of matrix products as arrays, and the least bytes each moves."""

    m: Floats
    n: Floats
    k: Floats
    batch: Floats
    bytes_moved: Floats
    element_bytes: float


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of a batch of GEMM works; dims m, n, k, batch."""
    products = Products(
        batch.dim("m", 1), batch.dim("n", 1), batch.dim("k", 1), batch.dim("batch", 1),
        batch.bytes_moved, ELEMENT_BYTES[batch.precision],
    )  # fmt: skip
    return product_times(products, matrix_peak(chip, batch.precision).value, chip, GemmParameters.of(fit))


def product_times(products: Products, peak_flops: float, chip: Chip, p: GemmParameters) -> Times:
    """The fastest tile and split of each product."""
    best = np.full(len(products.m), np.inf)
    limit = np.zeros(len(best), dtype=np.int64)
    for tile_m, tile_n in TILES:
        for split in SPLITS:
            seconds, which = _with_tile(products, peak_flops, chip, p, tile_m, tile_n, split)
            better = seconds < best
            best = np.where(better, seconds, best)
            limit = np.where(better, which, limit)
    return Times(best, limit)


def _with_tile(
    x: Products, peak_flops: float, chip: Chip, p: GemmParameters, tile_m: int, tile_n: int, split: int
) -> tuple[Floats, Floats]:
    units = chip.multiprocessors.value
    tiles = x.batch * np.ceil(x.m / tile_m) * np.ceil(x.n / tile_n) * split
    waves = np.ceil(tiles / units)
    depth = np.ceil(x.k / (split * TILE_K)) * TILE_K
    feed = 1.0 + p.edge * (1.0 / tile_m + 1.0 / tile_n)
    compute = waves * depth * (2.0 * tile_m * tile_n * feed * units / (peak_flops * p.compute))
    cache = tiles * depth * ((tile_m + tile_n) * x.element_bytes / (p.l2 * chip.l2_bytes_per_s.value))
    memory = memory_seconds(x.bytes_moved, chip, dram=p.dram, l2=p.l2, resident=p.resident)
    rows = np.minimum(x.m, tile_m) + np.minimum(x.n, tile_n)
    stream = waves * depth * rows * (x.element_bytes * units / (p.stream * chip.memory_bytes_per_s.value))
    memory = np.maximum(memory, stream)
    body = np.maximum(np.maximum(compute, cache), memory)
    fixed = p.floor_s + waves * p.fill_s
    if split > 1:
        partial_bytes = 2.0 * 4.0 * split * x.m * x.n * x.batch  # FP32 partial sums written and read once
        fixed = fixed + p.fill_s + partial_bytes / (p.l2 * chip.l2_bytes_per_s.value)
    which = np.where(cache > memory, int(Limit.CACHE), int(Limit.MEMORY))
    which = np.where(compute >= np.maximum(cache, memory), int(Limit.COMPUTE), which)
    return body + fixed, np.where(body >= fixed, which, int(Limit.LATENCY))
