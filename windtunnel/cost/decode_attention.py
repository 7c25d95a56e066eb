"""Attention of few queries over a long cache (decode), grouped-query and latent (MLA).

    cache   = sequences × min(kv, window) × bytes per token, from memory             (``memory_path.py``)
    compute = 2 × sequences × KV heads × rows × keys × (qk_dim + v_dim) ÷ sustained              (``peaks.py``)
    blocks  = sequences × KV heads × ⌈rows ÷ rows of a block⌉,     parts by the library's rule      (``splits.py``)
    walk    = keys ÷ parts × key × max(blocks × parts ÷ (resident × multiprocessors), 1)
    key     = max(bytes a key ÷ (stream × clock), products a key) + key_clocks ÷ clock
    begun   = fill × (½ + dims ÷ 512) ÷ clock
    chain   = walk + begun × (⌈blocks × parts ÷ (multiprocessors × held)⌉ − 1)
    moved   = (queries + outputs + sums of parts) ÷ (move × multiprocessors × clock)
    time    = (floor + combine if split + pack if packed) ÷ clock + begun + |cache, compute, chain| + moved

``|…|`` is the norm of order ``SHARP``. Queries that share a KV head are padded to the 16 ``rows`` of one matrix
instruction. A block walks its keys at what one block draws (``stream``, another figure for heads wider than 192:
``wide_stream``) and what a key costs whatever its width (``key_clocks``), so that few blocks wait long whatever the
memory could give; the prologues of later blocks pass while others wait for memory. ``window_keys`` are
those that a window's tiles reach beyond it. ``held`` is 1, and a multiprocessor's blocks begin one after the other, but
for FlashAttention 2 over a paged cache, whose blocks are as many as shared memory takes and begin together
(``occupancy.py``; ``begun`` then goes with their bytes). Under a window, even one that holds the whole cache, that
kernel packs no heads and splits no keys: every head is a block that reads the level-2 cache. Parts of split keys leave
sums in FP32, and a second kernel puts them together (``combine``).
``move`` is what serving libraries do to the new token beside attention (rotary, cache write, sum over splits), in
bytes a clock; ``pack`` is the copying of queries and outputs where several sequences and several KV heads make the
packed rows a transposed view (FlashAttention 2 under vLLM: 6 µs).
Benchmarks read the same cache again and again (``repeats``), so that small ones stay in the level-2 cache; in a
program other layers come between. MLA is one KV head whose value is part of its key.

A library may have no kernel for a cache of 8 bits and widen all of it to 16 in every step before its kernel reads the
copy (SGLang's FlashAttention 3 over a latent cache): a pass more, of cache ÷ (``widen`` × multiprocessors × clock),
whose time does not know of heads.

TensorRT-LLM has a kernel of single heads beside the one that takes all heads of a KV head together: for more than
``group_max`` of them, for one, and where the other's blocks would be few (``_too_few_to_group``). Each head is then a
block that reads the cache, widened to 16 bits, out of the level-2 cache, with a floor, prologue and stream of its own
(``alone``), several to a multiprocessor. vLLM's Triton kernels of latent attention are two as well, one for a single
head.

Fitted on A100, H100, H800 and B200: 1 to 2,048 sequences of up to 131,072 keys. Heads left out, weighted by time:
see ``parameters/decode_attention.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Floats, Limit, Times
from windtunnel.cost.memory_path import CACHE_SHARE, memory_seconds
from windtunnel.cost.occupancy import USUAL_BYTES, paged_blocks, paged_bytes
from windtunnel.cost.peaks import sustained_flops
from windtunnel.cost.splits import RULES, parts
from windtunnel.specs.schema import Chip

INSTRUCTION_ROWS = 16.0
SHARP = 4.0
"""Order of the norm of what overlaps in the main loop."""
BLOCK_KEYS = 64.0
SPLIT_KEYS = 128.0
"""Keys that rules of splitting count in one step: the block of keys of heads of 128."""
ALONE_KEYS = 256.0
"""Keys that TensorRT-LLM's kernel of single heads leaves to one block."""
WIDE = 192.0
"""Head dimensions beyond which libraries ship another kernel, of smaller tiles."""
CACHE_HOLDS = 0.8
"""Share of the level-2 cache that keys and values keep when they are walked again and again: from there on each is gone
before it is read again."""
ALL_GROUPS = 1e6
"""``group_max`` of libraries with one kernel for all groups."""
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
WIDENED = 2.0
"""Bytes of 16 bits to one of 8."""
PARTIAL_BYTES = 4.0
"""Bytes of an element of the sums that parts leave."""


@dataclass(frozen=True, slots=True)
class DecodeParameters:
    """FLOPs and bytes a clock (issue, move, widen, and streams of one block), a fraction of bandwidth, numbers (heads,
    splits, blocks resident on a multiprocessor, keys of a window), clocks (a block, fixed, a key, putting splits
    together, packing queries), a share of the multiprocessors (grouped_least); ``rule``: place in ``RULES``.
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
    alone_floor_clocks: float
    alone_stream: float
    wide_stream: float
    alone_resident: float
    resident: float
    key_clocks: float
    window_keys: float
    grouped_least: float
    rows: float
    rule: float
    paged: bool
    widen: float

    @classmethod
    def of(cls, fit: Fit) -> DecodeParameters:
        """The parameters of a fit."""
        numbers = {name: fit.value(name) for name in cls.__slots__ if name not in ("paged", "widen")}
        return cls(**numbers, paged=fit.value("paged", 0.0) > 0, widen=fit.value("widen", 0.0))


@dataclass(frozen=True, slots=True)
class _Shapes:
    """What a batch asks for, and which of it is computed head by head: whole groups (``alone``), or heads that share
    no cache in a library that has such a kernel (``single``).
    """

    sequences: Floats
    kv: Floats
    keys: Floats  # that count
    visited: Floats  # with those that a window's tiles reach beyond it
    windowed: Flags
    kv_heads: Floats
    group: Floats
    rows: Floats  # of queries of one KV head
    dims: Floats
    per_token: Floats
    alone: Flags
    single: Flags
    unpacked: Flags  # heads that share a KV head are blocks of the usual kernel each, as a window has it

    @classmethod
    def of(cls, batch: Batch, chip: Chip, p: DecodeParameters) -> _Shapes:
        kv, window = batch.dim("kv_len", 1), batch.dim("window")
        kv_heads = np.maximum(batch.dim("kv_heads", 1), 1.0)
        group = batch.dim("heads", 1) / kv_heads
        alone = (group > p.group_max) | _too_few_to_group(batch, chip, p) | _in_chunks(batch, chip, p)
        unpacked = (window > 0) & p.paged  # also where it holds the whole cache
        return cls(
            sequences=batch.dim("batch", 1),
            kv=kv,
            keys=np.where(window > 0, np.minimum(kv, window), kv),
            visited=np.where(window > 0, np.minimum(kv, window + p.window_keys), kv),
            windowed=window > 0,
            kv_heads=kv_heads,
            group=group,
            rows=batch.dim("q_len", 1) * batch.dim("heads", 1) / kv_heads,
            dims=batch.dim("qk_dim", 1) + batch.dim("v_dim", 1),
            per_token=batch.dim("kv_bytes_per_token") * (WIDENED if p.widen else 1.0),
            alone=alone,
            single=alone | ((group == 1.0) & (p.group_max < ALL_GROUPS)),
            unpacked=np.asarray(unpacked),
        )

    @property
    def padded_rows(self) -> Floats:
        """Rows of whole matrix instructions, of all heads of a KV head."""
        apart = np.where(self.unpacked, self.group, 1.0)
        return np.asarray(np.ceil(self.rows / apart / INSTRUCTION_ROWS) * INSTRUCTION_ROWS * apart)


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of decode attention works; dims as for attention plus kv_bytes_per_token."""
    p = DecodeParameters.of(fit)
    x = _Shapes.of(batch, chip, p)
    units, clock = chip.multiprocessors.value, chip.clock_hz.value
    sustained = sustained_flops(chip, batch.precision, p.issue)
    cache = _cache_s(x, batch, chip, p, cold=fit.value("repeats", 0.0) == 0)
    padded_keys = np.ceil(x.keys / BLOCK_KEYS) * BLOCK_KEYS
    compute = 2.0 * x.sequences * x.kv_heads * x.padded_rows * padded_keys * x.dims / sustained
    each = x.alone | x.unpacked
    blocks = x.sequences * x.kv_heads * np.where(each, x.rows, np.ceil(x.rows / p.rows))
    split = _split(x, blocks, units, p)
    begun = np.where(x.single, p.alone_clocks, p.fill_clocks * _begins(batch, p)) / clock
    key_s = _key_s(x, batch, chip, p, sustained)
    held = paged_blocks(batch.dim("qk_dim", 1), chip) if p.paged else np.ones(len(batch))
    draw = np.minimum(held, p.resident) if p.paged else np.where(x.single, p.alone_resident, p.resident)
    waves = np.ceil(blocks * split / (units * held))
    chain = _walk_s(x, blocks, split, units * draw, p, key_s) + begun * (waves - 1.0)
    queries = 2.0 * x.sequences * x.kv_heads * x.rows * x.dims
    sums = 2.0 * split * x.sequences * x.kv_heads * x.rows * batch.dim("v_dim", 1) * PARTIAL_BYTES
    moved = (queries + np.where(split > 1.0, sums, 0.0)) / (p.move * units * clock)
    floor = np.where(x.single, p.alone_floor_clocks, p.floor_clocks)
    combine = np.where(split > 1.0, p.combine_clocks, 0.0)
    transposed = (x.sequences > 1) & (x.kv_heads > 1) & (x.group > 1) & ~x.unpacked
    packed = np.where(transposed, p.pack_clocks, 0.0)
    narrow = x.sequences * x.kv * x.per_token / WIDENED
    fixed = (floor + combine + packed) / clock + begun
    widening = narrow / (p.widen * units * clock) if p.widen else np.zeros(len(batch))
    loop = (cache**SHARP + compute**SHARP + chain**SHARP) ** (1.0 / SHARP)
    body = np.maximum(cache, compute) + moved + widening
    latency = loop + moved + widening - body
    limit = np.where(compute > cache, int(Limit.COMPUTE), int(Limit.MEMORY))
    return Times(body + latency + fixed, np.where(body >= fixed + latency, limit, int(Limit.LATENCY)))


def _cache_s(x: _Shapes, batch: Batch, chip: Chip, p: DecodeParameters, *, cold: bool) -> Floats:
    """Seconds to read the cache; heads taken one by one read it again, widened, from the level-2 cache."""
    read = x.sequences * x.keys * x.per_token
    seconds = memory_seconds(read, chip, dram=p.dram, footprint=read / CACHE_HOLDS, cold=cold)
    widened = batch.dim("heads", 1) * x.dims * 2.0
    again = x.sequences * x.keys * widened / (CACHE_SHARE * chip.l2_bytes_per_s.value)
    return np.where(x.alone | x.unpacked, np.maximum(seconds, again), seconds)


def _split(x: _Shapes, blocks: Floats, units: float, p: DecodeParameters) -> Floats:
    """Parts that the keys of a sequence are split into."""
    rule = RULES[int(p.rule)]
    key_blocks = np.floor(x.kv / SPLIT_KEYS) if rule.history else np.ceil(x.visited / SPLIT_KEYS)
    group = np.where(x.unpacked, 1.0, x.group)
    split = parts(rule, blocks, key_blocks, group, units, p.splits)
    by_head = np.clip(np.floor(units / blocks), 1.0, np.ceil(x.visited / ALONE_KEYS))
    by_head = np.where(x.visited > ALONE_KEYS, by_head, 1.0)
    return split if rule.fixed else np.where(x.single, by_head, split)


def _key_s(x: _Shapes, batch: Batch, chip: Chip, p: DecodeParameters, sustained: float) -> Floats:
    """Seconds that a block alone on its multiprocessor spends on a key."""
    units, clock = chip.multiprocessors.value, chip.clock_hz.value
    together = np.where(x.unpacked, INSTRUCTION_ROWS, np.minimum(x.padded_rows, p.rows))
    products = 2.0 * together * x.dims * units / sustained
    wide = batch.dim("qk_dim", 1) > WIDE
    stream = np.where(x.single, p.alone_stream, np.where(wide, p.wide_stream, p.stream)) * clock
    return np.asarray(np.maximum(x.per_token / x.kv_heads / stream, products) + p.key_clocks / clock)


def _begins(batch: Batch, p: DecodeParameters) -> Floats:
    """What a block loads before it begins, against heads of 128."""
    dim = batch.dim("qk_dim", 1)
    if p.paged:
        return np.asarray(paged_bytes(dim) / USUAL_BYTES)
    return np.asarray(0.5 + (dim + batch.dim("v_dim", 1)) / 512.0)


def _walk_s(
    x: _Shapes, blocks: Floats, split: Floats, places: Floats, p: DecodeParameters, key_s: Floats
) -> Floats:
    """Seconds until all blocks have walked their keys, ``places`` of them at once; a window may lie in one of the
    parts of a whole cache.
    """
    keys = x.visited / split
    if RULES[int(p.rule)].history:
        keys = np.where(x.windowed, np.minimum(x.visited, x.kv / split), keys)
    return np.asarray(keys * key_s * np.maximum(blocks * split / places, 1.0))


def _in_chunks(batch: Batch, chip: Chip, p: DecodeParameters) -> Flags:
    """Where tokens see their own stretch only, TensorRT-LLM's kernel for groups is not taken either
    (``supportConfigCommon``, the same place); Blackwell's generated ones are.
    """
    if chip.architecture.startswith("Blackwell") or not p.grouped_least:
        return np.zeros(len(batch), dtype=np.bool_)
    return np.asarray(batch.dim("chunk") > 0)


def _too_few_to_group(batch: Batch, chip: Chip, p: DecodeParameters) -> Flags:
    """Where TensorRT-LLM leaves the kernel that takes all heads of a KV head together: when its blocks, one for every
    128 keys, would fill less than a quarter of the chip (``decoderXQAImplJIT.cpp``, ``mayHavePerfGain``). Hopper's
    kernel for caches of 8 bits and Blackwell's generated ones are taken for all shapes.
    """
    always = chip.architecture.startswith(
        ("Blackwell", "Hopper") if batch.variant == "fp8_cache" else "Blackwell"
    )
    if always or not p.grouped_least:
        return np.zeros(len(batch), dtype=np.bool_)
    key_blocks = np.maximum(batch.dim("kv_len", 1) // SPLIT_KEYS, 1.0)
    key_blocks = np.ones(len(batch)) if RULES[int(p.rule)].whole else key_blocks
    blocks = batch.dim("batch", 1) * np.maximum(batch.dim("kv_heads", 1), 1.0) * key_blocks
    return np.asarray(blocks < p.grouped_least * chip.multiprocessors.value)
