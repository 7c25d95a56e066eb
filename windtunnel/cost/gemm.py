"""Dense matrix products, all precisions: what a vendor library does with C[m, n] = A[m, k] · B[k, n].

The library picks, from a few tile shapes and split-K factors, the fastest. For one choice (tm × tn, s):

    tiles    = batch × ⌈m ÷ tm⌉ × ⌈n ÷ tn⌉ × s              waves = ⌈tiles ÷ multiprocessors⌉
    compute  = waves × ⌈k ÷ s⌉ × 2 × tm × tn × multiprocessors × (1 ÷ matrix + feed ÷ around)  (``peaks.py``)
    feed     = 1 + edge × (1 ÷ tm + 1 ÷ tn)
    cache    = tiles × ⌈k ÷ s⌉ × (tm + tn) × element ÷ (cache × cache bandwidth)
    stream   = waves × ⌈k ÷ s⌉ × (min(tm, m) + min(tn, n)) × element ÷ (stream × bandwidth ÷ multiprocessors)
    memory   = bytes ÷ (dram × bandwidth)                    (with a fast path for what fits the cache)
    time     = floor + waves × fill ÷ clock + |compute, cache, stream, memory| [+ split-K reduction]

``|…|`` is the norm of order ``sharp``: 1 adds up, large takes the largest. ``edge`` is the cost of feeding
small tiles, ``fill`` one tile's prologue and epilogue, ``stream`` how much more than its fair share of memory
bandwidth one multiprocessor can draw when few are busy, ``cache`` counts reuse that multicast adds. Products
that keep the chip busy for long run at the clock that the power limit sustains:

    time × (1 + throttle × time ÷ (time + throttle_s))

Time never falls when m, n, k or batch grow. Libraries that quantise their input inside the measured call pay
``quantise`` passes over A and ``quantise_s``; only rows of that library are priced so.

Fitted on A100, H100, H800, B200 and S5000: m 1 to 32,768, n and k 32 to 65,536. Shapes left out, weighted by
time: BF16 2 to 6 % median, 5 to 17 % at p90; FP8 2 to 16 %; S5000, each row in turn, 8 %. All fits with their
ranges: ``parameters/gemm.json`` and ``docs/kernel-costs.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Ints, Limit, Times
from windtunnel.cost.memory_path import memory_seconds
from windtunnel.cost.peaks import issue_flops, matrix_flops
from windtunnel.specs.schema import Chip

TILES = (
    (256, 256),
    (256, 128),
    (128, 256),
    (128, 128),
    (128, 64),
    (64, 256),
    (64, 128),
    (64, 64),
    (32, 128),
    (32, 64),
    (16, 128),
    (16, 64),
    (16, 32),
)
"""(rows, columns) of output tiles that libraries ship for tensor cores."""

SPLITS = (1, 2, 4, 8, 16)
"""Split-K factors."""

TILE_K = 64
"""K is walked in steps of this many elements."""


@dataclass(frozen=True, slots=True)
class GemmParameters:
    """FLOPs a clock (issue), rows (edge), fractions of bandwidths, an order (sharp) and seconds."""

    issue: float
    edge: float
    cache: float
    stream: float
    dram: float
    l2: float
    resident: float
    sharp: float
    fill_clocks: float
    floor_s: float
    split_s: float
    throttle: float
    throttle_s: float

    @classmethod
    def of(cls, fit: Fit) -> GemmParameters:
        """The parameters of a fit."""
        return cls(*(fit.value(name) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Products:
    """Shapes of matrix products as arrays, the least bytes each moves, and bytes of an element of A and B."""

    m: Floats
    n: Floats
    k: Floats
    batch: Floats
    bytes_moved: Floats
    a_bytes: float
    b_bytes: float


WEIGHT_ONLY_BYTES = {"int8_wo": 1.0, "int4_wo": 0.5}
"""Bytes of a weight that is widened on its way into the tile, by kernel path."""


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of a batch of GEMM works; dims m, n, k, batch."""
    inner = product_times(products(batch), batch.precision, chip, GemmParameters.of(fit))
    passes, fixed_s = fit.value("quantise", 0.0), fit.value("quantise_s", 0.0)
    if passes == 0 and fixed_s == 0:
        return inner
    a_bytes = 2.0 * batch.dim("m", 1) * batch.dim("k", 1) * batch.dim("batch", 1)
    quantise = memory_seconds(
        passes * a_bytes, chip, dram=fit.value("dram"), l2=fit.value("l2"), resident=fit.value("resident")
    )
    return Times(inner.seconds + quantise + fixed_s, inner.limit)


def products(batch: Batch) -> Products:
    """The shapes of a batch of GEMM or convolution works."""
    element = ELEMENT_BYTES[batch.precision]
    return Products(
        m=batch.dim("m", 1),
        n=batch.dim("n", 1),
        k=batch.dim("k", 1),
        batch=batch.dim("batch", 1),
        bytes_moved=batch.bytes_moved,
        a_bytes=element,
        b_bytes=WEIGHT_ONLY_BYTES.get(batch.variant, element),
    )


def product_times(x: Products, precision: str, chip: Chip, p: GemmParameters) -> Times:
    """The fastest tile and split of each product, at the sustained clock."""
    best = np.full(len(x.m), np.inf)
    limit = np.zeros(len(best), dtype=np.int64)
    speeds = (matrix_flops(chip, precision), issue_flops(chip, precision, p.issue))
    memory = memory_seconds(x.bytes_moved, chip, dram=p.dram, l2=p.l2, resident=p.resident)
    for tile_m, tile_n in TILES:
        for split in SPLITS:
            seconds, which = _with_tile(x, memory, speeds, chip, p, (tile_m, tile_n, split))
            better = seconds < best
            best = np.where(better, seconds, best)
            limit = np.where(better, which, limit)
    return Times(best * (1.0 + p.throttle * best / (best + p.throttle_s)), limit)


def _with_tile(
    x: Products,
    memory: Floats,
    speeds: tuple[float, float],
    chip: Chip,
    p: GemmParameters,
    choice: tuple[int, int, int],
) -> tuple[Floats, Ints]:
    tile_m, tile_n, split = choice
    units = chip.multiprocessors.value
    tiles = x.batch * np.ceil(x.m / tile_m) * np.ceil(x.n / tile_n) * split
    waves = np.ceil(tiles / units)
    depth = np.ceil(x.k / (split * TILE_K)) * TILE_K
    feed = 1.0 + p.edge * (1.0 / tile_m + 1.0 / tile_n)
    matrix_flop_s, issue_flop_s = speeds
    compute = waves * depth * (2.0 * tile_m * tile_n * units * (1.0 / matrix_flop_s + feed / issue_flop_s))
    tile_bytes = tile_m * x.a_bytes + tile_n * x.b_bytes
    cache = tiles * depth * (tile_bytes / (p.cache * chip.l2_bytes_per_s.value))
    drawn = np.minimum(x.m, tile_m) * x.a_bytes + np.minimum(x.n, tile_n) * x.b_bytes
    stream = waves * depth * drawn * (units / (p.stream * chip.memory_bytes_per_s.value))
    body, which = _norm(compute, cache, np.maximum(memory, stream), p.sharp)
    fixed = p.floor_s + waves * (p.fill_clocks / chip.clock_hz.value)
    if split > 1:
        partial_bytes = 2.0 * 4.0 * split * x.m * x.n * x.batch  # FP32 partial sums, written and read once
        fixed = fixed + p.split_s + partial_bytes / (p.l2 * chip.l2_bytes_per_s.value)
    return body + fixed, np.where(body >= fixed, which, int(Limit.LATENCY))


def _norm(compute: Floats, cache: Floats, memory: Floats, order: float) -> tuple[Floats, Ints]:
    largest = np.maximum(np.maximum(compute, cache), memory)
    body = largest * (
        (compute / largest) ** order + (cache / largest) ** order + (memory / largest) ** order
    ) ** (1.0 / order)
    which = np.where(cache > memory, int(Limit.CACHE), int(Limit.MEMORY))
    return body, np.where(compute >= largest, int(Limit.COMPUTE), which)
