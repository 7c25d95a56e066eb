"""How many drafted tokens are accepted: drawn for every request and every step, the same wherever it is asked."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_ADDED, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WIDE_ADDED, _WIDE_LAST = np.uint64(_ADDED), np.uint64(31)
_WIDE_ROUNDS = ((np.uint64(30), np.uint64(_FIRST)), (np.uint64(27), np.uint64(_SECOND)))


def accepted(number: int, step: int, drafts: int, chance: float) -> int:
    """Of ``drafts`` tokens that request ``number`` drafted for its ``step``-th check, each accepted after the last."""
    if chance >= 1.0:
        return drafts
    if chance <= 0.0:
        return 0
    draw, found = _mixed(number << 24 ^ step), 0
    for most in _bounds(drafts, chance):  # a third of the time of two logarithms
        if draw >= most:
            break
        found += 1
    return found


def accepted_from(number: int, step: int, checks: int, drafts: int, chance: float) -> NDArray[np.int64]:
    """The same for ``checks`` checks, beginning with the ``step``-th."""
    if chance >= 1.0 or chance <= 0.0:
        return np.full(checks, drafts if chance >= 1.0 else 0, dtype=np.int64)
    value = np.arange(step, step + checks, dtype=np.uint64)
    value ^= np.uint64(number << 24 & _MASK)
    value += _WIDE_ADDED
    for shift, factor in _WIDE_ROUNDS:  # in place, by numbers that are made once: three quarters of the time
        value ^= value >> shift
        value *= factor
    value ^= value >> _WIDE_LAST
    first, *more = _bounds(drafts, chance)
    found = (value < np.uint64(first)).astype(np.int64)
    for most in more:
        found += value < np.uint64(most)
    return found


def _length(draw: int, chance: float) -> int:
    """Accepted drafts in a row for a draw between 1 and 2⁶⁴."""
    return int(math.log(draw / (1 << 64)) / math.log(chance))


@cache
def _bounds(drafts: int, chance: float) -> tuple[int, ...]:
    """Below which draws so many drafts in a row are accepted: 1, 2 and so on."""
    return tuple(_most(length, chance) for length in range(1, drafts + 1))


def _most(length: int, chance: float) -> int:
    """The largest draw for which ``length`` drafts in a row are accepted."""
    low, high = 0, 1 << 64
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _length(middle, chance) >= length else (low, middle)
    return low


def _mixed(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014)."""
    value = (value + _ADDED) & _MASK
    value = ((value ^ value >> 30) * _FIRST) & _MASK
    value = ((value ^ value >> 27) * _SECOND) & _MASK
    return value ^ value >> 31
