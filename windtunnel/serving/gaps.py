"""Gaps between the tokens of requests, in two columns of numbers: half as long to make and read as pairs of objects."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def _seconds() -> array[float]:
    return array("d")


def _counts() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Gaps:
    """``tokens`` that came after about ``seconds`` each, stretch after stretch; as pairs when gone through."""

    seconds: array[float] = field(default_factory=_seconds)
    tokens: array[int] = field(default_factory=_counts)

    def __iter__(self) -> Iterator[tuple[float, int]]:
        return zip(self.seconds, self.tokens, strict=True)

    @property
    def count(self) -> int:
        """Tokens in all."""
        return sum(self.tokens)


def columns(several: Iterable[Gaps]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds and tokens of several, one after another."""
    seconds, tokens = _seconds(), _counts()
    for one in several:
        seconds.extend(one.seconds)
        tokens.extend(one.tokens)
    return np.array(seconds, dtype=np.float64), np.array(tokens, dtype=np.float64)
