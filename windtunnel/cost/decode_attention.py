"""Attention of few queries over a long cache (decode), grouped-query and latent (MLA).

    cache   = sequences × min(kv, window) × bytes per token, from memory             (``memory_path.py``)
    compute = 2 × sequences × KV heads × rows × keys × (qk_dim + v_dim) ÷ sustained              (``peaks.py``)
    latency = keys ÷ splits × step ÷ clock               keys that one block walks in sequence
    queries = (queries + outputs) ÷ (move × multiprocessors × clock)
    blocks  = ⌈sequences × KV heads × ⌈rows ÷ 64⌉ ÷ multiprocessors⌉ × fill ÷ clock
    time    = (floor + combine if keys > 128) ÷ clock + max(cache, compute) + latency + queries + blocks

Queries that share a KV head are padded to the 16 ``rows`` of one matrix instruction, keys to blocks of 64. Keys
are split over blocks until every multiprocessor has work, over ``splits`` blocks at most; caches of more than 128
keys then wait for ``combine``, the kernel that puts the parts together (every library's times step there).
``move`` is what serving libraries do to the new token beside attention (rotary, cache write, sum over splits), in
bytes a clock.
Benchmarks read the same cache again and again (``repeats``), so that small ones stay in the level-2 cache; in a
program other layers come between. Where more than ``group_max`` heads share a KV head, the library takes every
head by itself, in a block of its own that reads the cache, widened to 16 bits, out of the level-2 cache. MLA is
one KV head whose value is part of its key.

Fitted on A100, H100, H800 and B200: 1 to 2,048 sequences of up to 131,072 keys. Heads left out, weighted by time:
1 to 16 % median; up to 87 % at p90 where a library changes kernels (large groups of heads, 16-bit fall back).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Limit, Times
from windtunnel.cost.memory_path import CACHE_SHARE, memory_seconds
from windtunnel.cost.peaks import sustained_flops
from windtunnel.specs.schema import Chip

INSTRUCTION_ROWS = 16.0
BLOCK_ROWS = 64.0
BLOCK_KEYS = 64.0
UNSPLIT_KEYS = 128.0
"""Caches of up to so many keys stay in one block."""


@dataclass(frozen=True, slots=True)
class DecodeParameters:
    """FLOPs and bytes a clock, a fraction of bandwidth, numbers of heads and splits, and clocks (a key in
    sequence, a wave, fixed, putting splits together).
    """

    issue: float
    dram: float
    move: float
    group_max: float
    splits: float
    step_clocks: float
    fill_clocks: float
    floor_clocks: float
    combine_clocks: float

    @classmethod
    def of(cls, fit: Fit) -> DecodeParameters:
        """The parameters of a fit."""
        return cls(*(fit.value(name) for name in cls.__slots__))


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of decode attention works; dims as for attention plus kv_bytes_per_token."""
    p = DecodeParameters.of(fit)
    units, clock = chip.multiprocessors.value, chip.clock_hz.value
    kv_heads = np.maximum(batch.dim("kv_heads", 1), 1.0)
    sequences, kv = batch.dim("batch", 1), batch.dim("kv_len", 1)
    keys = np.where(batch.dim("window") > 0, np.minimum(kv, batch.dim("window")), kv)
    group = batch.dim("heads", 1) / kv_heads
    per_token = batch.dim("kv_bytes_per_token")
    alone = group > p.group_max
    cold = fit.value("repeats", 0.0) == 0
    cache = memory_seconds(sequences * keys * per_token, chip, dram=p.dram, cold=cold)
    widened = batch.dim("heads", 1) * (batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)) * 2.0
    by_head = sequences * keys * widened / (CACHE_SHARE * chip.l2_bytes_per_s.value)
    cache = np.where(alone, np.maximum(cache, by_head), cache)
    rows = batch.dim("q_len", 1) * batch.dim("heads", 1) / kv_heads
    padded_rows = np.ceil(rows / INSTRUCTION_ROWS) * INSTRUCTION_ROWS
    padded_keys = np.ceil(keys / BLOCK_KEYS) * BLOCK_KEYS
    dims = batch.dim("qk_dim", 1) + batch.dim("v_dim", 1)
    flops = 2.0 * sequences * kv_heads * padded_rows * padded_keys * dims
    compute = flops / sustained_flops(chip, batch.precision, p.issue)
    blocks = sequences * kv_heads * np.where(alone, rows, np.ceil(rows / BLOCK_ROWS))
    latency = p.step_clocks / clock * keys / np.clip(units / blocks, 1.0, p.splits)
    queries = 2.0 * sequences * kv_heads * rows * dims / (p.move * units * clock)
    combine = np.where(keys > UNSPLIT_KEYS, p.combine_clocks, 0.0)
    fixed = (p.floor_clocks + combine + p.fill_clocks * np.ceil(blocks / units)) / clock
    body = np.maximum(cache, compute) + queries
    limit = np.where(compute > cache, int(Limit.COMPUTE), int(Limit.MEMORY))
    return Times(body + latency + fixed, np.where(body >= fixed + latency, limit, int(Limit.LATENCY)))
