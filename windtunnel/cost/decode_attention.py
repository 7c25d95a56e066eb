"""Attention of few queries over a long cache (decode), grouped-query and latent (MLA).

    memory  = (cache + queries + outputs) bytes ÷ (dram × bandwidth)
    compute = 2 × batch × ⌈queries of one KV head⌉ × kv × (qk_dim + v_dim) ÷ (compute × peak)
    latency = kv ÷ splits × step                        keys that one block walks in sequence
    time    = floor + max(memory, compute) + latency

Queries that share a KV head are padded to the 16 rows of one matrix instruction. Keys are split over blocks
until every multiprocessor has work. MLA is the case of one KV head whose value is part of its key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Limit, Times
from windtunnel.cost.peaks import matrix_peak
from windtunnel.specs.schema import Chip

INSTRUCTION_ROWS = 16.0


@dataclass(frozen=True, slots=True)
class DecodeParameters:
    """Fractions of peak and bandwidth, and seconds (per key walked in sequence, and fixed)."""

    compute: float
    dram: float
    step_s: float
    floor_s: float

    @classmethod
    def of(cls, fit: Fit) -> DecodeParameters:
        """The parameters of a fit."""
        return cls(*(fit.value(name) for name in cls.__slots__))


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of decode attention works; dims as for attention plus kv_bytes_per_token."""
    p = DecodeParameters.of(fit)
    kv_heads = np.maximum(batch.dim("kv_heads", 1), 1.0)
    sequences, kv = batch.dim("batch", 1), batch.dim("kv_len", 1)
    keys = np.where(batch.dim("window") > 0, np.minimum(kv, batch.dim("window")), kv)
    cached = sequences * keys * batch.dim("kv_bytes_per_token")
    moved = np.where(cached > 0, cached + batch.bytes_written, batch.bytes_moved)
    memory = moved / (p.dram * chip.memory_bytes_per_s.value)
    queries = batch.dim("q_len", 1) * batch.dim("heads", 1) / kv_heads
    padded = np.ceil(queries / INSTRUCTION_ROWS) * INSTRUCTION_ROWS
    dims = batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)
    flops = 2.0 * sequences * kv_heads * padded * keys * dims
    compute = flops / (p.compute * matrix_peak(chip, batch.precision).value)
    splits = np.maximum(1.0, chip.multiprocessors.value / (sequences * kv_heads))
    fixed = p.floor_s + p.step_s * keys / splits
    body = np.maximum(memory, compute)
    limit = np.where(compute > memory, int(Limit.COMPUTE), int(Limit.MEMORY))
    return Times(body + fixed, np.where(body >= fixed, limit, int(Limit.LATENCY)))
