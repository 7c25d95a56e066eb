"""Fused attention over many queries (prefill, training), forward and backward, and its fall back to math.

    keys    = mean keys that a tile of queries visits: causal triangle and window, in whole tiles
    unit    = seconds that one multiprocessor takes for a tile of queries and one key:
              |products × 2 × rows × multiprocessors × (dims ÷ matrix + (dims + 2 × narrow) ÷ around),
               softmax × rows ÷ (EXPONENTIALS × clock)|      (``peaks.py``; dims = qk_dim + v_dim; 2-norm)
    total   = tiles × keys × unit ÷ multiprocessors,     longest = most keys of one tile × unit
    waves   = ⌈tiles ÷ (multiprocessors × blocks held)⌉                   (``query_tiles.py``, ``occupancy.py``)
    time    = (floor + waves × fill) ÷ clock
              + |max(longest, total + tail × longest), own| + max(handled, memory)       (``memory_path.py``)

    tiles   = sequences × heads × ⌈queries ÷ rows⌉, or sequences × KV heads × ⌈queries × group ÷ rows⌉ where the kernel
              packs the heads that share a KV head into one tile (FlashInfer, vLLM's Triton kernel, and by ``pack``
              FlashAttention 3; the last is chosen while fitting)

``own`` is what the kernel itself reads and writes, from memory beside the products (4-norm); ``handled`` and ``memory``
are what the harness's own kernels move before it, by ``move`` bytes a clock and multiprocessor and by the bandwidth:

    vLLM, SGLang      new keys and values, read and written; and the queries, where they are narrowed to 8 bits
    TensorRT-LLM      packed queries, keys and values; its attention moves its bytes in turn, not beside the products
    not known         all that attention reads and writes

Tiles are of 128 rows where no source says otherwise, and ``fill`` goes with their rows. Kernels written
for an A100 (FlashAttention 2) reach no more of later matrix units than ``mma.sync`` does
(``peaks.synchronous_flops``). With the sustained clock of ``gemm.py``. ``products`` is 1 forward and 2.5 backward;
``narrow`` is the loss of small head dimensions; ``softmax`` the work of a score in units of one exponential, which
runs beside the products and shows where it is not much shorter; ``tail`` how much of the longest tile is left over when
the others are done. ``wide`` is how much longer heads beyond 192 take.
``skip`` is 1 for kernels that
pass over tiles outside a window, 0 for those that mask them.

Where PyTorch's fused kernel does not take the shape (``Chip.attention``), or the variant is ``math``: two batched
products, and the score matrix written and read in between. A library that was called by its name takes what it takes.

Fitted on A100, H100, H800, B200 and S5000: 1 to 32,768 queries, heads of 64 to 256. Heads left out, weighted by
time: 1 to 9 % median, 3 to 28 % at p90; 36 % on the few shapes of TensorRT-LLM's kernels under FlashInfer (B200).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from windtunnel.cost import query_tiles
from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Limit, Times
from windtunnel.cost.memory_path import memory_seconds
from windtunnel.cost.peaks import (
    issue_flops,
    matrix_flops,
    power_slowdown,
    sustained_flops,
    synchronous_flops,
)
from windtunnel.cost.stand_in import ALL_APART, CACHE_APART
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip

QUERY_TILE = 128.0
WIDE = 192.0
"""Head dimensions beyond which kernels run on smaller tiles."""
EXPONENTIALS = 16.0  # special-function results a clock and multiprocessor (CUDA programming guide, 5.4.1)
SHARP = 4.0
"""Order of the norm of products and of what the kernel itself reads and writes, which overlap."""
BACKWARD_PRODUCTS = 2.5  # five products instead of two
MATH_PASSES = 6.0  # scores: written, scaled and masked, softmax, read (each pass read or write)


_FACTS = ("pack", "tile", "synchronous", "copies", "quantised")


@dataclass(frozen=True, slots=True)
class AttentionParameters:
    """FLOPs and bytes a clock (issue, move), elements (narrow), exponentials (softmax), fractions, clocks; and facts of
    the program: whether it packs heads, its rule of tiles (``query_tiles.py``), its matrix instructions, what its
    harness copies and narrows (``stand_in.py``).
    """

    issue: float
    narrow: float
    softmax: float
    tail: float
    skip: float
    move: float
    dram: float
    throttle: float
    fill_clocks: float
    floor_clocks: float
    wide: float
    pack: bool
    tile: int
    copies: int
    quantised: bool
    synchronous: bool

    @classmethod
    def of(cls, fit: Fit) -> AttentionParameters:
        """The parameters of a fit."""
        numbers = {name: fit.value(name) for name in cls.__slots__ if name not in _FACTS}
        return cls(
            **numbers,
            pack=fit.value("pack", 0.0) > 0,
            tile=int(fit.value("tile", 0.0)),
            copies=int(fit.value("copies", 0.0)),
            quantised=fit.value("quantised", 0.0) > 0,
            synchronous=fit.value("synchronous", 0.0) > 0,
        )


THROTTLE_S = 2e-3
"""Duration at which half of the throttling of long kernels has set in."""

RULED = ("flash", "efficient", "cudnn")
"""Paths of PyTorch that the chip's rules govern; other kernels were called by name and take what they take."""

OWN = ("", "torch")
"""Names under which PyTorch's own kernels are asked for."""


def keys_visited(
    batch: Batch,
    skip: float = 1.0,
    queries: Floats | float = QUERY_TILE,
    key_tile: Floats | float = 1.0,
) -> tuple[Floats, Floats]:
    """Mean and largest number of keys that a tile of queries visits; block masks through ``flops``.

    Args:
        skip: the share of the tiles outside a window that the kernel passes over.
        queries: positions that a tile spans.
        key_tile: keys that are computed together, masked or not; half a tile on the mean at each edge.
    """
    q, kv = np.maximum(batch.dim("q_len", 1), 1.0), np.maximum(batch.dim("kv_len", 1), 1.0)
    tile = np.minimum(queries, q)
    past = np.maximum(kv - q, 0.0)
    edge = (np.asarray(key_tile) - 1.0) / 2.0
    kv = np.ceil(kv / key_tile) * key_tile
    triangle = np.maximum(past + (q + tile) / 2.0 + edge, key_tile)
    mean = np.where(batch.dim("causal") > 0, np.minimum(kv, triangle), kv)
    window = batch.dim("window")
    near = np.where(window > 0, np.minimum(kv, window + tile + 2.0 * edge), kv)
    reach = skip * near + (1.0 - skip) * kv
    full = (
        2.0
        * _heads(batch)
        * q
        * batch.dim("kv_len", 1)
        * (batch.dim("qk_dim", 1) + batch.dim("v_dim", 1))
        * _products(batch)
    )
    density = np.where(batch.flops > 0, np.minimum(1.0, batch.flops / full), 1.0)
    masked = density < 0.8  # flops below the dense count: a block mask, already counted
    return (
        np.where(masked, density * kv, skip * np.minimum(mean, near) + (1.0 - skip) * mean),
        np.where(masked, np.minimum(kv, 2.0 * density * kv), reach),
    )


def called_by(batch: Batch, library: str) -> Batch:
    """The kernels as ``library`` is called: PyTorch's rules bind what PyTorch calls.

    Engines call MATE's FlashAttention 3 on Moore Threads cards for heads of 256, where torch_musa's scaled dot product
    ends at 128 (MATE 0.2: ``docs/flash_attention.md``, heads of up to 512).
    """
    return replace(batch, variant="") if batch.variant in RULED and library not in OWN else batch


def supported(batch: Batch, chip: Chip) -> Floats:
    """1 where a fused kernel takes the shape, else 0."""
    if batch.variant == "math":
        return np.zeros(len(batch))
    if batch.variant not in RULED:
        return np.ones(len(batch))
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp8": "float8_e4m3fn"}.get(batch.precision, "float32")
    pairs = np.stack([batch.dim("qk_dim"), batch.dim("v_dim")], axis=1)
    distinct, inverse = np.unique(pairs, axis=0, return_inverse=True)
    answers = [chip.attention.supports(dtype, int(qk), int(v)) for qk, v in distinct]
    return np.asarray(np.array(answers, dtype=np.float64)[inverse.reshape(-1)])


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of attention works, forward or backward by the family of the batch."""
    p = AttentionParameters.of(fit)
    fused, plain = _fused(batch, chip, p, fit.value("throttle_s", THROTTLE_S)), _math(batch, chip, p)
    taken = supported(batch, chip) > 0
    return Times(np.where(taken, fused.seconds, plain.seconds), np.where(taken, fused.limit, plain.limit))


def _split_dim(rule: int, dim: Floats) -> Floats:
    """Elements of keys that are computed. SGLang's kernel takes 576, 288 and 192 in two powers of two."""
    two = (dim == 576) | (dim == 288) | (dim == 192)
    return np.where(two & (rule == query_tiles.TRITON), dim, query_tiles.padded_dim(rule, dim))


def _heads(batch: Batch) -> Floats:
    return batch.dim("batch", 1) * batch.dim("heads", 1)


def _group(batch: Batch) -> Floats:
    """Heads that share a KV head."""
    kv_heads = batch.dim("kv_heads")
    return np.where(kv_heads > 0, np.maximum(batch.dim("heads", 1) / np.maximum(kv_heads, 1.0), 1.0), 1.0)


def _new_bytes(batch: Batch) -> Floats:
    """Bytes of the keys and values of the queries' own tokens: what a serving library reads and writes to its cache."""
    per_token = batch.dim("kv_bytes_per_token")
    plain = np.maximum(batch.dim("kv_heads"), 1.0) * (batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)) * 2.0
    return np.asarray(batch.dim("batch", 1) * batch.dim("q_len", 1) * (plain + per_token))


def _beside(batch: Batch, p: AttentionParameters, moved: Floats) -> Floats:
    """Bytes that pass through memory one after the other with the products; all where the harness is not known."""
    queries = _heads(batch) * batch.dim("q_len", 1) * batch.dim("qk_dim", 1)
    if p.copies == ALL_APART:  # packed queries; new keys and values, twice; then attention's own
        return np.asarray(moved + 2.0 * queries + _new_bytes(batch))
    if p.copies == CACHE_APART:
        return np.asarray(_new_bytes(batch) + (3.0 * queries if p.quantised else 0.0))
    return moved


def _scores(batch: Batch) -> Floats:
    return np.asarray(_heads(batch) * batch.dim("q_len", 1) * batch.dim("kv_len", 1))


def _products(batch: Batch) -> float:
    return BACKWARD_PRODUCTS if batch.family is Family.ATTENTION_BACKWARD else 1.0


def _fused(batch: Batch, chip: Chip, p: AttentionParameters, throttle_s: float) -> Times:
    tiled = _tiled(batch, chip, p)
    own, memory = _moved(batch, chip, p)
    floor = p.floor_clocks * np.maximum(batch.kernels, 1.0)
    fixed = (floor + p.fill_clocks * tiled.waves) / chip.clock_hz.value
    seconds = np.maximum(tiled.seconds, own) + memory + fixed
    limit = np.where(
        tiled.seconds >= memory + own,
        np.where(tiled.vector, int(Limit.VECTOR), int(Limit.COMPUTE)),
        int(Limit.MEMORY),
    )
    slower = power_slowdown(chip, p.throttle) - 1.0
    compute = tiled.seconds * (1.0 + slower * seconds / (seconds + throttle_s))
    body = (compute**SHARP + own**SHARP) ** (1.0 / SHARP) + memory
    return Times(body + fixed, np.where(body >= fixed, limit, int(Limit.LATENCY)))


@dataclass(frozen=True, slots=True)
class _Tiled:
    """What tiles of queries take: seconds, waves of prologues as of 128 rows, whether exponentials take longer."""

    seconds: Floats
    waves: Floats
    vector: np.ndarray[tuple[int], np.dtype[np.bool_]]


def _tiled(batch: Batch, chip: Chip, p: AttentionParameters) -> _Tiled:
    units, dim, q = chip.multiprocessors.value, batch.dim("qk_dim", 1), batch.dim("q_len", 1)
    dims = _split_dim(p.tile, dim) + query_tiles.padded_dim(p.tile, batch.dim("v_dim", 1))
    matrix = (synchronous_flops if p.synchronous else matrix_flops)(chip, batch.precision)
    slowness = dims / matrix + (dims + 2.0 * p.narrow) / issue_flops(chip, batch.precision, p.issue)
    tile = query_tiles.rows(p.tile, dim, chip, q * _group(batch))
    products = _products(batch) * 2.0 * tile * units * slowness * np.where(dim > WIDE, p.wide, 1.0)
    exps = p.softmax * tile / (EXPONENTIALS * chip.clock_hz.value)
    unit = np.hypot(products, exps)
    packs = p.tile in query_tiles.PACKING or (p.pack and p.tile == query_tiles.USUAL)
    group = _group(batch) if packs else np.ones(len(batch))
    tiles = _heads(batch) / group * np.ceil(q * group / tile)
    together = query_tiles.keys_together(p.tile, dim)
    keys, most = keys_visited(batch, p.skip, np.maximum(tile / group, 1.0), together)
    longest = most * unit
    waves = np.ceil(tiles / (units * query_tiles.blocks_held(p.tile, dim, chip)))
    return _Tiled(
        np.maximum(longest, tiles * keys * unit / units + p.tail * longest),
        waves * query_tiles.begins(p.tile, dim, tile),
        np.asarray(exps > products),
    )


def _moved(batch: Batch, chip: Chip, p: AttentionParameters) -> tuple[Floats, Floats]:
    """Seconds of what the kernel reads and writes beside its products, and of what is moved before or after them."""
    moved = batch.bytes_moved * _products(batch)
    beside = _beside(batch, p, moved)
    apart = p.copies == CACHE_APART
    rate = p.move * chip.multiprocessors.value * chip.clock_hz.value
    handled = (beside if apart else moved) / rate
    own = memory_seconds(moved, chip, dram=p.dram) if apart else np.zeros(len(batch))
    return own, np.maximum(handled, memory_seconds(beside, chip, dram=p.dram))


def _math(batch: Batch, chip: Chip, p: AttentionParameters) -> Times:
    products = _products(batch)
    sustained = sustained_flops(chip, _math_precision(batch, chip), p.issue)
    dims = batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)
    matrix = 2.0 * products * _scores(batch) * dims / sustained
    score_bytes = _scores(batch) * ELEMENT_BYTES[batch.precision] * MATH_PASSES * products
    memory = (batch.bytes_moved + score_bytes) / (p.dram * chip.memory_bytes_per_s.value)
    fixed = np.full(len(batch), 5.0 * products * p.floor_clocks / chip.clock_hz.value)
    body = matrix + memory
    limit = np.where(matrix >= memory, int(Limit.COMPUTE), int(Limit.MEMORY))
    return Times(body + fixed, np.where(body >= fixed, limit, int(Limit.LATENCY)))


def _math_precision(batch: Batch, chip: Chip) -> str:
    return (
        "tf32"
        if batch.precision == "fp32" and chip.tf32_default and "tf32" in chip.peak_flops
        else batch.precision
    )
