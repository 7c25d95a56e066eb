"""Fused attention over many queries (prefill, training), forward and backward, and its fall back to math.

    keys    = mean keys that a tile of 128 queries visits: causal triangle and window, in whole tiles
    unit    = seconds that one multiprocessor takes for a tile of queries and one key:
              |products × 2 × 128 × multiprocessors × (dims ÷ matrix + (dims + 2 × narrow) ÷ around),
               softmax × 128 ÷ (EXPONENTIALS × clock)|       (``peaks.py``; dims = qk_dim + v_dim; 2-norm)
    total   = tiles × keys × unit ÷ multiprocessors,     longest = most keys of one tile × unit
    time    = (floor + waves × fill) ÷ clock
              + max(longest, total + tail × longest) + max(handled, memory)        (``memory_path.py``)
    handled = (bytes + written × new keys and values, read and written) ÷ (move × multiprocessors × clock)

    tiles   = sequences × heads × ⌈queries ÷ 128⌉, or sequences × KV heads × ⌈queries × group ÷ 128⌉ where the kernel
              packs the heads that share a KV head into one tile (``pack``: FlashAttention 3; chosen while fitting)

for tiles of 128 rows; Triton's have fewer (``query_tiles.py``), and ``fill`` goes with their rows. Kernels written
for an A100 (FlashAttention 2) reach no more of later matrix units than ``mma.sync`` does
(``peaks.synchronous_flops``). With the sustained clock of ``gemm.py``. ``products`` is 1 forward and 2.5 backward;
``narrow`` is the loss of small head dimensions; ``softmax`` the work of a score in units of one exponential, which
runs beside the products and shows where it is not much shorter; ``tail`` how much of the longest tile is left over when
the others are done. ``move`` is what serving libraries do around the kernel (they write the cache, and widen or
quantise it): bytes a clock and multiprocessor, over new keys and values once more where the harness writes its cache
in a kernel of its own (``written``). It adds to the products. ``wide`` is how much longer heads beyond 192 take.
``skip`` is 1 for kernels that
pass over tiles outside a window, 0 for those that mask them.

Where the chip's own fused kernel does not take the shape (``Chip.attention``, for PyTorch's paths), or the
variant is ``math``: two batched products, and the score matrix written and read in between.

Fitted on A100, H100, H800, B200 and S5000: 1 to 32,768 queries, heads of 64 to 256. Heads left out, weighted by
time: 1 to 9 % median, 3 to 28 % at p90; 36 % on the few shapes of TensorRT-LLM's kernels under FlashInfer (B200).
"""

from __future__ import annotations

from dataclasses import dataclass

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
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip

QUERY_TILE = 128.0
WIDE = 192.0
"""Head dimensions beyond which kernels run on smaller tiles."""
EXPONENTIALS = 16.0  # special-function results a clock and multiprocessor (CUDA programming guide, 5.4.1)
BACKWARD_PRODUCTS = 2.5  # five products instead of two
MATH_PASSES = 6.0  # scores: written, scaled and masked, softmax, read (each pass read or write)


_FACTS = ("pack", "tile", "synchronous", "written")


@dataclass(frozen=True, slots=True)
class AttentionParameters:
    """FLOPs and bytes a clock (issue, move), elements (narrow), exponentials (softmax), fractions, clocks; and facts of
    the program: whether it packs heads, its rule of tiles (``query_tiles.py``), its matrix instructions.
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
    written: float
    pack: bool
    tile: int
    synchronous: bool

    @classmethod
    def of(cls, fit: Fit) -> AttentionParameters:
        """The parameters of a fit."""
        numbers = {name: fit.value(name) for name in cls.__slots__ if name not in _FACTS}
        return cls(
            **numbers,
            written=fit.value("written", 0.0),
            pack=fit.value("pack", 0.0) > 0,
            tile=int(fit.value("tile", 0.0)),
            synchronous=fit.value("synchronous", 0.0) > 0,
        )


THROTTLE_S = 2e-3
"""Duration at which half of the throttling of long kernels has set in."""

RULED = ("flash", "efficient", "cudnn")
"""Paths of PyTorch that the chip's rules govern; other kernels were called by name and take what they take."""


def keys_visited(
    batch: Batch, skip: float = 1.0, queries: Floats | float = QUERY_TILE
) -> tuple[Floats, Floats]:
    """Mean and largest number of keys that a tile of queries visits; block masks through ``flops``.

    Args:
        skip: the share of the tiles outside a window that the kernel passes over.
        queries: positions that a tile spans.
    """
    q, kv = np.maximum(batch.dim("q_len", 1), 1.0), np.maximum(batch.dim("kv_len", 1), 1.0)
    tile = np.minimum(queries, q)
    past = np.maximum(kv - q, 0.0)
    mean = np.where(batch.dim("causal") > 0, np.minimum(kv, past + (q + tile) / 2.0), kv)
    window = batch.dim("window")
    near = np.where(window > 0, np.minimum(kv, window + tile), kv)
    reach = skip * near + (1.0 - skip) * kv
    full = 2.0 * _heads(batch) * q * kv * (batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)) * _products(batch)
    density = np.where(batch.flops > 0, np.minimum(1.0, batch.flops / full), 1.0)
    masked = density < 0.8  # flops below the dense count: a block mask, already counted
    return (
        np.where(masked, density * kv, skip * np.minimum(mean, near) + (1.0 - skip) * mean),
        np.where(masked, np.minimum(kv, 2.0 * density * kv), reach),
    )


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


def _scores(batch: Batch) -> Floats:
    return np.asarray(_heads(batch) * batch.dim("q_len", 1) * batch.dim("kv_len", 1))


def _products(batch: Batch) -> float:
    return BACKWARD_PRODUCTS if batch.family is Family.ATTENTION_BACKWARD else 1.0


def _fused(batch: Batch, chip: Chip, p: AttentionParameters, throttle_s: float) -> Times:
    units = chip.multiprocessors.value
    dims = batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)
    matrix = (synchronous_flops if p.synchronous else matrix_flops)(chip, batch.precision)
    slowness = dims / matrix + (dims + 2.0 * p.narrow) / issue_flops(chip, batch.precision, p.issue)
    tile = query_tiles.rows(p.tile, batch.dim("qk_dim", 1), chip)
    products = _products(batch) * 2.0 * tile * units * slowness
    products = products * np.where(batch.dim("qk_dim", 1) > WIDE, p.wide, 1.0)
    exps = p.softmax * tile / (EXPONENTIALS * chip.clock_hz.value)
    unit = np.hypot(products, exps)
    packs = p.pack or p.tile == query_tiles.TRITON_16
    group = _group(batch) if packs else np.ones(len(batch))
    tiles = _heads(batch) / group * np.ceil(batch.dim("q_len", 1) * group / tile)
    keys, most = keys_visited(batch, p.skip, np.maximum(tile / group, 1.0))
    longest = most * unit
    compute = np.maximum(longest, tiles * keys * unit / units + p.tail * longest)
    moved = batch.bytes_moved * _products(batch)
    clock = chip.clock_hz.value
    handled = (moved + p.written * _new_bytes(batch)) / (p.move * units * clock)
    memory = np.maximum(memory_seconds(moved, chip, dram=p.dram), handled)
    fixed = (
        p.floor_clocks * np.maximum(batch.kernels, 1.0)
        + p.fill_clocks * tile / QUERY_TILE * np.ceil(tiles / units)
    ) / clock
    seconds = compute + memory + fixed
    limit = np.where(
        compute >= memory, np.where(exps > products, int(Limit.VECTOR), int(Limit.COMPUTE)), int(Limit.MEMORY)
    )
    slower = power_slowdown(chip, p.throttle) - 1.0
    body = compute * (1.0 + slower * seconds / (seconds + throttle_s)) + memory
    return Times(body + fixed, np.where(body >= fixed, limit, int(Limit.LATENCY)))


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
