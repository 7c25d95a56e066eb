"""Dense matrix products, all precisions: what a vendor library does with C[m, n] = A[m, k] · B[k, n].

The library picks, from the tile shapes and split-K factors on its menu (``tiles.py``), the fastest. For one choice
(tm × tn, s):

    tiles    = batch × ⌈m ÷ tm⌉ × ⌈n ÷ tn⌉ × s              waves = ⌈tiles ÷ multiprocessors⌉
    compute  = waves × ⌈k ÷ s⌉ × 2 × tm × tn × multiprocessors × (1 ÷ matrix + feed ÷ around)  (``peaks.py``)
    feed     = 1 + edge × (1 ÷ tm + 1 ÷ tn)
    cache    = tiles × ⌈k ÷ s⌉ × (tm + tn) × element ÷ (cache × shared × cache bandwidth)
    stream   = waves × ⌈k ÷ s⌉ × (min(tm, m) + min(tn, n)) × element ÷ (stream × clock)
    memory   = bytes × miss(footprint) ÷ (dram × bandwidth)                          (``memory_path.py``)
    store    = waves × min(tm, m) × min(tn, n) × 2 bytes ÷ (store × clock)
    time     = floor + waves × fill ÷ clock + store + |compute, cache, stream, memory| [+ split-K reduction]

``|…|`` is the norm of order 8: the largest, and a little more where others come near. ``edge`` is the cost of feeding
small tiles, ``fill`` one tile's prologue, ``store`` the bytes a clock at which one multiprocessor converts and writes
a finished tile (what products of small k are made of), ``stream`` the bytes a clock that one multiprocessor
draws (bytes in flight ÷ latency: what bounds a chip of which few multiprocessors are busy), ``cache`` counts
each tile by itself: its share of the cache's bandwidth is near ``CACHE_SHARE`` on every chip, and ``shared`` the tiles
that one read serves where there are clusters. Libraries whose rules state their clusters (``tiles.py``) read

    rows × element ÷ tiles side by side + columns × element ÷ tiles one above the other

instead, ``shared`` is then assumed to be 2. The footprint is what a benchmark touches before the same comes round again
(``touched_bytes``), else both activations once and the weights ``CYCLE`` times in every partition of the cache: between
two uses of one weight others pass, in a program and in benchmarks, so that weights come from the level-2 cache only
where several of them fit. Products that keep the chip busy for long run at the clock
that the power limit sustains:

    compute × (1 + (slowdown − 1) × time ÷ (time + throttle_s)),   slowdown = (boost ÷ base clock)^throttle

Libraries that go by a rule (``tiles.py``) do not hide its cost:

    beyond   = tiles' rows beyond m × ⌈n ÷ tn⌉ × k × element ÷ 128 × beyond ÷ clock   on Hopper, added to compute
    again    = strips × bytes of the operand on the longer walk × miss × again ÷ (dram × bandwidth), added to memory

A tile of which one row is filled takes longer than a full one (vLLM's and SGLang's CUTLASS kernels alike: 0.08 clocks
for every 128 bytes asked for beyond the edge), and tiles walked along one side without swizzling read that whole
operand once for every strip of the other.

Matrices whose rows start at other multiples than 16 bytes (a vocabulary of 50257) are moved in narrower accesses:

    compute + tile steps × bytes of a tile × (accesses ÷ access − 1 ÷ 16) ÷ 32 a clock

Below 4 bytes there are two accesses, a load and a store, and the tile has 128 × 64 elements at most where there is a
choice. Grouped products hide only part of the shorter of arithmetic and memory behind the longer: the share ``serial``
of it adds up. What kernels of few blocks in flight wait for stands in ``block_waits.py``.

Time never falls when m, n, k or batch grow under a search. Libraries that quantise their input inside the measured
call pay ``quantise`` passes over A, at least ``quantise_row_clocks`` a row and multiprocessor (a block for each row),
and ``quantise_clocks``; only rows of that library are priced so.

Fitted on A100, H100, H800, B200 and S5000: m 1 to 32,768, n and k 32 to 65,536. Shapes left out, weighted by
time: BF16 1 to 9 % median, 5 to 16 % at p90; FP8 2 to 15 %; whole chips left out: L40S BF16 12 to 20 % by rows. All
fits with their ranges: ``parameters/gemm.json`` and ``docs/kernel-costs.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, WEIGHT_ONLY_BYTES, Batch
from windtunnel.cost.block_waits import gathered_bytes, resident, wait_s
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Ints, Limit, Times
from windtunnel.cost.memory_path import CACHE_SHARE, memory_seconds, missed
from windtunnel.cost.peaks import issue_flops, matrix_flops, power_slowdown
from windtunnel.cost.tiles import MENUS, Menu, Tiles
from windtunnel.specs.schema import Chip, Vendor

ROWS_AT_ONCE = 512
"""Products that all tiles are tried on at once: what keeps the arrays in a processor's cache."""

ACCESS_BYTES, ACCESSES_A_CLOCK = 16.0, 32.0
"""What one thread moves at once, and how many a multiprocessor can (32 load and store units since Ampere, NVIDIA's
white papers)."""

COPIED_BYTES = 4.0
"""The least that asynchronous copies to shared memory move (PTX ISA, ``cp.async``); less takes a load and a store."""

NARROW_TILE = 128 * 64
"""Elements of the largest tile whose elements pass through registers on their way to shared memory (assumed: logits
over an odd vocabulary take 2.5 times as long as padded ones on A100, in vTrain's runs of the calibration data)."""

_NEVER = 1e6

OUTPUT_BYTES = 2.0
"""Bytes of an output element, whatever the operands."""

CYCLE = 5.0
"""Weights that pass through the cache between two uses of one: layers that benchmarks rotate through."""

LINE_BYTES = 128.0
"""Bytes of a row that a tile loads at a time."""

SLOW_BEYOND = "Hopper"
"""Where copies of a tile that reach beyond the product are slow: no table of Ampere or Blackwell shows it."""

CLUSTERED = {Vendor.NVIDIA: (9, 0), Vendor.MOORE_THREADS: (3, 1)}
"""Compute capabilities from which on tiles launched together may be served by one read of the cache (multicast in
clusters). An MTT S5000 multiplies at nine tenths of its peak, which draws more than its cache was seen to read through
any tile that its shared memory holds.
"""

_ABSENT = {
    "beyond_clocks": 0.0,
    "again": 0.0,
    "step_clocks": 0.0,
    "serial": 0.0,
    "gathered": 0.0,
    "shared": 1.0,
}
"""What parameters are that not all fits have: rules of single libraries, grouped products, tiles that share reads."""

QUANTISE_SHARE = 0.8
"""Fraction of the memory bandwidth of a pass over activations; how many passes there are is fitted."""


@dataclass(frozen=True, slots=True)
class GemmParameters:
    """FLOPs and bytes a clock and multiprocessor (issue, stream, store), rows (edge), fractions of bandwidths,
    clocks and seconds; the tiles there are.
    """

    issue: float
    edge: float
    cache: float
    stream: float
    dram: float
    fill_clocks: float
    floor_clocks: float
    split_clocks: float
    store: float
    throttle: float
    throttle_s: float
    menu: Menu
    beyond_clocks: float = 0.0
    again: float = 0.0
    step_clocks: float = 0.0
    serial: float = 0.0
    gathered: float = 0.0
    shared: float = 1.0

    @classmethod
    def of(cls, fit: Fit) -> GemmParameters:
        """The parameters of a fit."""
        numbers = {name: fit.value(name, _ABSENT.get(name)) for name in cls.__slots__ if name != "menu"}
        return cls(**numbers, menu=MENUS[int(fit.value("menu", 0.0))])


@dataclass(frozen=True, slots=True)
class Products:
    """Shapes of matrix products as arrays, the least bytes each moves, and bytes of an element of A and B.

    Attributes:
        groups: (products, rows of one) where the products of a batch differ in their rows; ``m`` is then the mean.
        touched: bytes that come by before the same come round again, where it is known.
        height: rows that a library's rule goes by where it does not know those of the products.
        access: bytes that one thread moves at once: fewer than 16 where rows start at other multiples.
        distinct: rows of A that are not another one's copy, where rows are gathered.
    """

    m: Floats
    n: Floats
    k: Floats
    batch: Floats
    bytes_moved: Floats
    a_bytes: float
    b_bytes: float
    groups: tuple[tuple[Floats, Floats], ...] = ()
    touched: Floats | None = None
    height: Floats | None = None
    access: Floats | None = None
    distinct: Floats | None = None

    def rows(self, start: int, end: int) -> Products:
        """Some of the products."""
        m, n, k, batch, moved = (
            column[start:end] for column in (self.m, self.n, self.k, self.batch, self.bytes_moved)
        )
        groups = tuple((count[start:end], rows[start:end]) for count, rows in self.groups)
        told = tuple(
            None if column is None else column[start:end]
            for column in (self.touched, self.height, self.access, self.distinct)
        )
        return Products(m, n, k, batch, moved, self.a_bytes, self.b_bytes, groups, *told)

    def high(self, tiles: Tiles) -> Floats:
        """Tiles one above the other, over all products of a batch."""
        if not self.groups:
            return np.asarray(self.batch * tiles.high(self.m))
        every = [count * tiles.high(rows) for count, rows in self.groups]
        return np.asarray(np.sum(every, axis=0))

    def footprint(self, partitions: float) -> Floats:
        """Bytes that want to stay in the cache: activations once, weights ``CYCLE`` times in every partition."""
        weights = self.batch * self.n * self.k * self.b_bytes
        usual = np.maximum(self.bytes_moved - weights, 0.0) + CYCLE * partitions * weights
        return usual if self.touched is None else np.where(self.touched > 0, self.touched * partitions, usual)


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of a batch of GEMM works; dims m, n, k, batch."""
    inner = product_times(products(batch), batch.precision, chip, GemmParameters.of(fit))
    if not any(fit.value(name, 0.0) for name in ("quantise", "quantise_clocks")):
        return inner
    return Times(inner.seconds + _quantise_seconds(batch, chip, fit), inner.limit)


def _quantise_seconds(batch: Batch, chip: Chip, fit: Fit) -> Floats:
    """Passes over activations that the kernel before has just written, from the cache where they fit, or a block for
    each row where rows are short.
    """
    clock = chip.clock_hz.value
    rows = batch.dim("m", 1) * batch.dim("batch", 1)
    a_bytes = 2.0 * rows * batch.dim("k", 1)
    passes = memory_seconds(fit.value("quantise", 0.0) * a_bytes, chip, dram=QUANTISE_SHARE)
    blocks = rows / chip.multiprocessors.value * fit.value("quantise_row_clocks", 0.0) / clock
    return np.asarray(np.maximum(passes, blocks) + fit.value("quantise_clocks", 0.0) / clock)


def products(batch: Batch) -> Products:
    """The shapes of a batch of GEMM or convolution works."""
    element = ELEMENT_BYTES[batch.precision]
    access = batch.dim("access")
    return Products(
        m=batch.dim("m", 1),
        n=batch.dim("n", 1),
        k=batch.dim("k", 1),
        batch=batch.dim("batch", 1),
        bytes_moved=batch.bytes_moved,
        a_bytes=element,
        b_bytes=WEIGHT_ONLY_BYTES.get(batch.variant, element),
        touched=batch.dim("touched_bytes") if "touched_bytes" in batch.dims else None,
        access=np.where(access > 0, access, ACCESS_BYTES) if np.any(access > 0) else None,
    )


def product_times(x: Products, precision: str, chip: Chip, p: GemmParameters) -> Times:
    """The fastest tile and split of each product, at the sustained clock."""
    parts = [
        _fastest(x.rows(start, start + ROWS_AT_ONCE), precision, chip, p)
        for start in range(0, max(len(x.m), 1), ROWS_AT_ONCE)
    ]
    return Times(
        np.concatenate([part.seconds for part in parts]), np.concatenate([part.limit for part in parts])
    )


def _fastest(x: Products, precision: str, chip: Chip, p: GemmParameters) -> Times:
    """All tiles (first axis) and splits (second) of all products (third) at once."""
    units, clock = chip.multiprocessors.value, chip.clock_hz.value
    shapes = p.menu.tiles(x.m if x.height is None else x.height, x.n, x.k, chip.architecture)
    rows, columns = shapes.rows, shapes.columns
    splits = p.menu.splits()
    high, wide = x.high(shapes), shapes.wide(x.n)
    tiles = high * wide * splits
    waves = tiles / units if p.menu.striped else np.ceil(tiles / units)
    depth = np.ceil(x.k / (splits * shapes.depth)) * shapes.depth
    feed = 1.0 + p.edge * (1.0 / rows + 1.0 / columns)
    flop_s = 1.0 / matrix_flops(chip, precision) + feed / issue_flops(chip, precision, p.issue)
    tile_bytes = rows * x.a_bytes + columns * x.b_bytes
    drawn = np.minimum(x.m, rows) * x.a_bytes + np.minimum(x.n, columns) * x.b_bytes
    written = np.minimum(x.m, rows) * np.minimum(x.n, columns) * OUTPUT_BYTES
    steps = waves * depth
    compute = steps * (2.0 * rows * columns * units * flop_s)
    if p.beyond_clocks and chip.architecture.startswith(SLOW_BEYOND):
        lines = wide * (high * rows - x.batch * x.m) * x.k * x.a_bytes / LINE_BYTES
        compute = compute + lines * (p.beyond_clocks / clock)
    if x.access is not None and chip.vendor is Vendor.NVIDIA:
        compute = compute + steps * tile_bytes * _narrow_clocks(x.access) / clock
        too_large = (x.access < COPIED_BYTES) & (rows * columns > NARROW_TILE)
        compute = np.where(too_large & (len(rows) > 1), compute * _NEVER, compute)
    if p.step_clocks and p.menu.waits:
        at_once = resident(rows, columns)
        compute = np.maximum(compute, wait_s(tiles, depth / shapes.depth, at_once, chip, p.step_clocks))
    shared = p.shared if chip.compute_capability >= CLUSTERED[chip.vendor] else 1.0
    read_once = rows * x.a_bytes / shapes.beside + columns * x.b_bytes / shapes.cluster
    cache = tiles * depth * (read_once / (p.cache * shared * chip.l2_bytes_per_s.value))
    memory = _memory_s(x, chip, p)
    if not p.menu.swizzled:
        memory = memory + p.again * _again_bytes(x, high, wide, chip) / (
            p.dram * chip.memory_bytes_per_s.value
        )
    if p.gathered and x.distinct is not None and p.menu.waits:
        again = gathered_bytes(x.batch * x.m, x.k * x.a_bytes, wide, x.distinct, chip, p.gathered)
        memory = memory + again / (p.dram * chip.memory_bytes_per_s.value)
    memory = np.maximum(steps * (drawn / (p.stream * clock)), memory)
    fixed = (p.floor_clocks + waves * (p.fill_clocks + written / p.store)) / clock
    fixed = fixed + _split_s(x, splits, chip, p)
    boosted = _body(compute, cache, memory, p.serial) + fixed
    slower = power_slowdown(chip, p.throttle) - 1.0
    compute = compute * (1.0 + slower * boosted / (boosted + p.throttle_s))
    body = _body(compute, cache, memory, p.serial)
    seconds = body + fixed
    choice = seconds.reshape(-1, len(x.m)).argmin(axis=0)
    terms = (compute, cache, memory, body, seconds)
    compute, cache, memory, body, seconds = (_chosen(term, choice) for term in terms)
    bound = np.where(cache > memory, int(Limit.CACHE), int(Limit.MEMORY))
    bound = np.where(compute >= np.maximum(cache, memory), int(Limit.COMPUTE), bound)
    return Times(seconds, np.where(2.0 * body >= seconds, bound, int(Limit.LATENCY)))


def _narrow_clocks(access: Floats) -> Floats:
    """Clocks beyond those of whole accesses for every byte of a tile; they take issue slots from the arithmetic."""
    each = np.where(access < COPIED_BYTES, 2.0, 1.0) / access
    return np.asarray((each - 1.0 / ACCESS_BYTES) / ACCESSES_A_CLOCK)


def _memory_s(x: Products, chip: Chip, p: GemmParameters) -> Floats:
    partitions = 1.0 if chip.l2_partitions is None else chip.l2_partitions.value
    slow = x.bytes_moved / (p.dram * chip.memory_bytes_per_s.value)
    return np.asarray(slow * missed(x.footprint(partitions), chip))


def _again_bytes(x: Products, high: Floats, wide: Floats, chip: Chip) -> Floats:
    """Bytes read again where tiles are walked along the shorter side: a wave of them passes all of the operand on that
    side, once for every strip of the other, from memory where the cache does not hold it.
    """
    a, b = x.m * x.k * x.a_bytes, x.n * x.k * x.b_bytes
    at_once = np.maximum(chip.multiprocessors.value / np.minimum(high, wide), 1.0)
    strips = np.maximum(np.maximum(high, wide) / at_once - 1.0, 0.0)
    return np.asarray(np.where(high <= wide, a * missed(a, chip), b * missed(b, chip)) * strips)


def _split_s(x: Products, splits: Floats, chip: Chip, p: GemmParameters) -> Floats:
    """Seconds that split K adds: FP32 partial sums written and read once, and a pass over them."""
    partial = 2.0 * 4.0 * splits * (x.m * x.n * x.batch) / (CACHE_SHARE * chip.l2_bytes_per_s.value)
    return np.where(splits > 1, p.split_clocks / chip.clock_hz.value + partial, 0.0)


def _chosen(term: Floats, choice: Ints) -> Floats:
    return np.asarray(term.reshape(-1, len(choice))[choice, np.arange(len(choice))])


def _body(compute: Floats, cache: Floats, memory: Floats, serial: float) -> Floats:
    inside = _eighth(compute) + _eighth(cache)
    hidden = np.asarray(_root(inside + _eighth(memory)))
    return np.asarray(hidden + serial * np.minimum(_root(inside), memory)) if serial else hidden


def _root(value: Floats) -> Floats:
    return np.sqrt(np.sqrt(np.sqrt(value)))


def _eighth(value: Floats) -> Floats:
    """To the power of eight by squaring, which is many times faster than powers are."""
    square = value * value
    fourth = square * square
    return np.asarray(fourth * fourth)
