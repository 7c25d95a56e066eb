"""Fused attention over many queries (prefill, training), forward and backward, and its fall back to math.

    fraction = part of the score matrix inside the causal triangle and the window, in tiles of 128 × 128
    products = 2 × batch × heads × q × kv × (qk_dim + v_dim) × fraction          (backward: 2.5 times)
    matrix   = products ÷ (compute × peak × dims ÷ (dims + narrow))
    exps     = batch × heads × q × kv × fraction ÷ (exp × multiprocessors × clock)
    time     = floor + fill × waves + quantised max(matrix + serial × exps, memory)

Tiles of 128 queries of one head occupy one multiprocessor; the last wave is quantised. ``narrow`` is the loss
of small head dimensions, ``serial`` the part of the exponentials that is not hidden behind the products.
Where the chip's fused kernel does not take the shape (``Chip.attention``), or the variant is ``math``: two
batched products, and the score matrix written and read in between for scale, mask and softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Limit, Times
from windtunnel.cost.peaks import matrix_peak
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip

QUERY_TILE = 128.0
KEY_TILE = 128.0
BACKWARD_PRODUCTS = 2.5  # five products instead of two
MATH_PASSES = 6.0  # scores: written, scaled and masked, softmax, read (each pass read or write)


@dataclass(frozen=True, slots=True)
class AttentionParameters:
    """Fractions (compute, dram, serial), elements (narrow), exponentials per clock (exp), seconds."""

    compute: float
    narrow: float
    exp: float
    serial: float
    dram: float
    fill_s: float
    floor_s: float

    @classmethod
    def of(cls, fit: Fit) -> AttentionParameters:
        """The parameters of a fit."""
        return cls(*(fit.value(name) for name in cls.__slots__))


def fraction_computed(batch: Batch) -> Floats:
    """Part of the full score matrix that a fused kernel computes, in whole tiles."""
    q, kv = np.maximum(batch.dim("q_len", 1), 1.0), np.maximum(batch.dim("kv_len", 1), 1.0)
    causal, window = batch.dim("causal") > 0, batch.dim("window")
    past = np.maximum(kv - q, 0.0)
    seen = np.minimum(kv, past + (q + np.minimum(KEY_TILE, q)) / 2.0)  # mean keys per query, whole tiles
    keys = np.where(causal, seen, kv)
    keys = np.where(window > 0, np.minimum(keys, window + np.minimum(KEY_TILE, q)), keys)
    full = 2.0 * _heads(batch) * q * kv * (batch.dim("qk_dim", 1) + batch.dim("v_dim", 1))
    products = BACKWARD_PRODUCTS if batch.family is Family.ATTENTION_BACKWARD else 1.0
    density = np.where(batch.flops > 0, np.minimum(1.0, batch.flops / (full * products)), 1.0)
    sparse = density < 0.8  # flops below the dense count: a block mask, already counted
    return np.asarray(np.where(sparse, density, keys / kv))


def supported(batch: Batch, chip: Chip) -> Floats:
    """1 where the chip's fused kernel takes the shape, else 0."""
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp8": "float8_e4m3fn"}.get(batch.precision, "float32")
    if batch.variant == "math":
        return np.zeros(len(batch))
    pairs = np.stack([batch.dim("qk_dim"), batch.dim("v_dim")], axis=1)
    distinct, inverse = np.unique(pairs, axis=0, return_inverse=True)
    answers = np.array(
        [chip.attention.supports(dtype, int(qk), int(v)) for qk, v in distinct], dtype=np.float64
    )
    return np.asarray(answers[inverse.reshape(-1)])


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of attention works, forward or backward by the family of the batch."""
    p = AttentionParameters.of(fit)
    fused, plain = _fused(batch, chip, p), _math(batch, chip, p)
    taken = supported(batch, chip) > 0
    return Times(np.where(taken, fused.seconds, plain.seconds), np.where(taken, fused.limit, plain.limit))


def _heads(batch: Batch) -> Floats:
    return batch.dim("batch", 1) * batch.dim("heads", 1)


def _scores(batch: Batch) -> Floats:
    return np.asarray(_heads(batch) * batch.dim("q_len", 1) * batch.dim("kv_len", 1))


def _fused(batch: Batch, chip: Chip, p: AttentionParameters) -> Times:
    products = BACKWARD_PRODUCTS if batch.family is Family.ATTENTION_BACKWARD else 1.0
    units = chip.multiprocessors.value
    dims = (batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)) / 2.0
    q_tiles = np.ceil(batch.dim("q_len", 1) / QUERY_TILE)
    padded = q_tiles * QUERY_TILE / np.maximum(batch.dim("q_len", 1), 1.0)
    scores = _scores(batch) * fraction_computed(batch) * padded
    peak = matrix_peak(chip, batch.precision).value
    matrix = 4.0 * products * scores * (dims + p.narrow) / (p.compute * peak)
    exps = scores * p.serial / (p.exp * units * chip.clock_hz.value)
    blocks = _heads(batch) * q_tiles
    waves = np.ceil(blocks / units)
    uneven = waves * units / blocks
    compute = (matrix + exps) * np.where(
        waves > 4.0, 1.0 + (uneven - 1.0) / 2.0, uneven
    )  # causal tiles even out
    memory = batch.bytes_moved * products / (p.dram * chip.memory_bytes_per_s.value)
    fixed = p.floor_s * np.maximum(batch.kernels, 1.0) + p.fill_s * waves
    body = np.maximum(compute, memory)
    limit = np.where(
        compute >= memory, np.where(exps > matrix, int(Limit.VECTOR), int(Limit.COMPUTE)), int(Limit.MEMORY)
    )
    return Times(body + fixed, np.where(body >= fixed, limit, int(Limit.LATENCY)))


def _math(batch: Batch, chip: Chip, p: AttentionParameters) -> Times:
    products = BACKWARD_PRODUCTS if batch.family is Family.ATTENTION_BACKWARD else 1.0
    peak = matrix_peak(chip, _math_precision(batch, chip)).value
    dims = batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)
    matrix = 2.0 * products * _scores(batch) * dims / (p.compute * peak)
    score_bytes = _scores(batch) * ELEMENT_BYTES[batch.precision] * MATH_PASSES * products
    memory = (batch.bytes_moved + score_bytes) / (p.dram * chip.memory_bytes_per_s.value)
    fixed = np.full(len(batch), 5.0 * products * p.floor_s)
    body = matrix + memory
    limit = np.where(matrix >= memory, int(Limit.COMPUTE), int(Limit.MEMORY))
    return Times(body + fixed, np.where(body >= fixed, limit, int(Limit.LATENCY)))


def _math_precision(batch: Batch, chip: Chip) -> str:
    return (
        "tf32"
        if batch.precision == "fp32" and chip.tf32_default and "tf32" in chip.peak_flops
        else batch.precision
    )
