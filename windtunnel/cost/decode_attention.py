"""Attention of few queries over a long cache (decode), grouped-query and latent (MLA).

    cache   = sequences × min(kv, window) × bytes per token, from memory             (``memory_path.py``)
    compute = 2 × sequences × KV heads × rows × keys × (qk_dim + v_dim) ÷ sustained              (``peaks.py``)
    walk    = ⌈blocks × parts ÷ multiprocessors⌉ × keys ÷ parts × max(bytes a key ÷ (stream × clock), products a key)
    blocks  = sequences × KV heads × ⌈rows ÷ rows of a block⌉,     parts by the library's rule      (``splits.py``)
    moved   = (queries + outputs + sums of parts) ÷ (move × multiprocessors × clock)
    begun   = ⌈blocks ÷ multiprocessors⌉ × fill × (½ + dims ÷ 512) ÷ clock
    time    = (floor + combine if split + pack if packed) ÷ clock + |cache, compute, walk| + moved + begun

``|…|`` is the norm of order ``SHARP``. Queries that share a KV head are padded to the 16 ``rows`` of one matrix
instruction, keys to blocks of 64. A block walks its keys at what one multiprocessor draws (``stream``), so that few
blocks wait long whatever the memory could give. Parts of split keys leave sums in FP32, and a second kernel puts them
together (``combine``).
``move`` is what serving libraries do to the new token beside attention (rotary, cache write, sum over splits), in
bytes a clock; ``pack`` is the copying of queries and outputs where several sequences and several KV heads make the
packed rows a transposed view (FlashAttention 2 under vLLM: 6 µs).
Benchmarks read the same cache again and again (``repeats``), so that small ones stay in the level-2 cache; in a
program other layers come between. Where more than ``group_max`` heads share a KV head, the library takes every
head by itself, in a block of its own that reads the cache, widened to 16 bits, out of the level-2 cache; such a library
starts blocks of single heads in ``alone`` clocks. MLA is one KV head whose value is part of its key.

Fitted on A100, H100, H800 and B200: 1 to 2,048 sequences of up to 131,072 keys. Heads left out, weighted by time:
1 to 15 % median, 2 to 31 % at p90; FlashAttention 4 on an H100 83 %, Triton's latent kernel 60 % at p90.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Limit, Times
from windtunnel.cost.memory_path import CACHE_SHARE, memory_seconds
from windtunnel.cost.peaks import sustained_flops
from windtunnel.cost.splits import RULES, parts
from windtunnel.specs.schema import Chip

INSTRUCTION_ROWS = 16.0
SHARP = 4.0
"""Order of the norm of what overlaps in the main loop."""
BLOCK_KEYS = 64.0
SPLIT_KEYS = 128.0
"""Keys that rules of splitting count in one step: the block of keys of heads of 128."""
ALL_GROUPS = 1e6
"""``group_max`` of libraries with one kernel for all groups."""
PARTIAL_BYTES = 4.0
"""Bytes of an element of the sums that parts leave."""


@dataclass(frozen=True, slots=True)
class DecodeParameters:
    """FLOPs and bytes a clock (issue, move, and stream of one block), a fraction of bandwidth, numbers of heads and
    splits, and clocks (a wave, fixed, putting splits together, packing queries); ``rule``: place in ``RULES``.
    """

    issue: float
    dram: float
    move: float
    stream: float
    group_max: float
    splits: float
    fill_clocks: float
    floor_clocks: float
    combine_clocks: float
    pack_clocks: float
    alone_clocks: float
    rows: float
    rule: float

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
    sustained = sustained_flops(chip, batch.precision, p.issue)
    compute = flops / sustained
    blocks = sequences * kv_heads * np.where(alone, rows, np.ceil(rows / p.rows))
    split = parts(RULES[int(p.rule)], blocks, np.ceil(keys / SPLIT_KEYS), group, units, p.splits)
    key_products = 2.0 * np.minimum(padded_rows, p.rows) * dims * units / sustained
    key_s = np.maximum(
        per_token / kv_heads / (p.stream * clock), key_products
    )  # one block alone on its multiprocessor
    longest = keys / split * key_s
    walk = longest * np.maximum(np.ceil(blocks * split / units), 1.0)
    queries = 2.0 * sequences * kv_heads * rows * dims
    partial = np.where(
        split > 1.0, 2.0 * split * sequences * kv_heads * rows * batch.dim("v_dim", 1) * PARTIAL_BYTES, 0.0
    )
    moved = (queries + partial) / (p.move * units * clock)
    combine = np.where(split > 1.0, p.combine_clocks, 0.0)
    packed = np.where((sequences > 1) & (kv_heads > 1) & (group > 1), p.pack_clocks, 0.0)
    single = alone | ((group == 1.0) & (p.group_max < ALL_GROUPS))
    begun = np.where(single, p.alone_clocks, p.fill_clocks * (0.5 + dims / 512.0)) * np.ceil(blocks / units)
    fixed = (p.floor_clocks + combine + packed + begun) / clock
    loop = (cache**SHARP + compute**SHARP + walk**SHARP) ** (1.0 / SHARP)
    body = np.maximum(cache, compute) + moved
    latency = loop + moved - body
    limit = np.where(compute > cache, int(Limit.COMPUTE), int(Limit.MEMORY))
    return Times(body + latency + fixed, np.where(body >= fixed + latency, limit, int(Limit.LATENCY)))
