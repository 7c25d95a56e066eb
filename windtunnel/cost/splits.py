"""Over how many blocks a decode kernel splits the keys of one sequence: the rule of each library.

Keys are split so that every multiprocessor has work where sequences and heads alone do not give enough blocks. Each
part then writes its sums, and a second kernel puts them together. Libraries differ in when they do so:

    filled      blocks for every multiprocessor, up to a number of parts (fitted)
    FA2         over two blocks a multiprocessor, none from 0.8 of them on; the fewest parts within 15 % of the best
                use of the last wave (FlashAttention 2, ``num_splits_heuristic``)
    FA2 grouped the same, but only where heads share a KV head: packed into rows they take another path
    FA3         one block a multiprocessor, none up to four blocks of keys (FlashAttention 3, ``heuristics.h``)
    XQA         parts of at least 128 keys, no more than √(8 × those), up to eight blocks a multiprocessor
                (TensorRT-LLM, ``computeMultiBlockCount``)
    never       whole keys: TensorRT-LLM's kernel of 16-bit caches over those of 8 bits
    fixed       a number of parts (fitted), whatever the shape: Triton kernels with a second stage

Which rule a kernel follows is chosen while fitting, as menus of tiles are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from windtunnel.cost.kernel_time import Floats

PARTS_MAX = 128
ENOUGH = 0.8
"""Share of the places for blocks from which on keys stay whole."""
CLOSE = 0.85
"""How near to the best use of the last wave is near enough."""


@dataclass(frozen=True, slots=True)
class SplitRule:
    """When a library splits keys.

    Attributes:
        places: blocks a multiprocessor that the rule counts with; 0: no heuristic, the parts fill the chip.
        whole_blocks: key blocks up to which keys stay whole.
        grouped: only where several heads share a KV head.
        fixed: always the same number of parts.
        waves: blocks a multiprocessor up to which keys are split, into no more than √(8 × key blocks) parts.
        history: whether parts are counted over the whole cache, also where a window reaches over the last of it.
        whole: keys are never split.
        kernel: the only kernel that may follow the rule; any where empty.
    """

    name: str
    places: int = 0
    whole_blocks: int = 1
    grouped: bool = False
    fixed: bool = False
    waves: int = 0
    history: bool = False
    whole: bool = False
    kernel: str = ""


RULES = (
    SplitRule("filled"),
    SplitRule("FA2", places=2),
    SplitRule("FA2, grouped", places=2, grouped=True),
    SplitRule("FA3", places=1, whole_blocks=4),
    SplitRule("fixed", fixed=True),
    SplitRule("XQA", waves=8, history=True, kernel="trtllm"),
    SplitRule("XQA, window", waves=8, kernel="trtllm"),
    SplitRule("never", whole=True, kernel="none"),
)
"""The number of a rule is its place here, and stands in parameter files."""


def parts(
    rule: SplitRule, blocks: Floats, key_blocks: Floats, group: Floats, units: float, most: float
) -> Floats:
    """Parts that the keys of one sequence and KV head are split into.

    Args:
        blocks: thread blocks without splitting. key_blocks: steps of keys that one of them walks.
        group: heads that share a KV head. units: multiprocessors. most: parts at most, of rules that are fitted.
    """
    if rule.whole:
        return np.ones_like(blocks)
    if rule.fixed:
        return np.minimum(np.full_like(blocks, most), key_blocks)
    if rule.waves:
        sparing = np.minimum(key_blocks, np.round(np.sqrt(8.0 * key_blocks)))
        return np.maximum(np.minimum(sparing, np.floor(rule.waves * units / blocks)), 1.0)
    if rule.places == 0:
        filling = np.clip(units / blocks, 1.0, most)
        return np.where(key_blocks > rule.whole_blocks, np.minimum(filling, key_blocks), 1.0)
    found = np.frombuffer(_cached(blocks.tobytes(), key_blocks.tobytes(), rule.places * units))
    whole = (blocks >= ENOUGH * rule.places * units) | (key_blocks <= rule.whole_blocks)
    whole |= (group <= 1.0) if rule.grouped else False
    return np.where(whole, 1.0, found)


@lru_cache(maxsize=64)
def _cached(blocks: bytes, key_blocks: bytes, places: float) -> bytes:
    """Fits ask for the same shapes again and again."""
    return _fewest_near_best(np.frombuffer(blocks), np.frombuffer(key_blocks), places).tobytes()


def _fewest_near_best(blocks: Floats, key_blocks: Floats, places: float) -> Floats:
    """The fewest parts whose last wave is used nearly as well as that of the best number."""
    number = np.arange(1.0, PARTS_MAX + 1.0).reshape(-1, 1)
    waves = blocks * number / places
    steps = np.ceil(key_blocks / number)
    distinct = np.ones_like(waves, dtype=np.bool_)
    distinct[1:] = steps[1:] != steps[:-1]  # one more part that shortens none is no candidate
    use = np.where(distinct & (number <= np.minimum(key_blocks, places)), waves / np.ceil(waves), 0.0)
    return np.asarray(number[np.argmax(use >= CLOSE * use.max(axis=0), axis=0), 0])
