"""How many drafted tokens are accepted: drawn for every request and every step, the same wherever it is asked."""

from __future__ import annotations

import math

_MASK = (1 << 64) - 1


def accepted(number: int, step: int, drafts: int, chance: float) -> int:
    """Of ``drafts`` tokens that request ``number`` drafted for its ``step``-th check, each accepted after the last."""
    if chance >= 1.0:
        return drafts
    if chance <= 0.0:
        return 0
    uniform = (_mixed(number << 24 ^ step) + 1) / (1 << 64)
    return min(drafts, int(math.log(uniform) / math.log(chance)))


def _mixed(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31
