"""How long the answers of MLPerf's data sets are, request by request.

The data sets' lengths are not published, but a log of the server scenario says how long requests lasted. Where a token
takes about as long for all of them (within 5 %), that over its mean is how the lengths scatter over theirs. Read from
logs of inference_results_v5.1 (mlcommons, 965182b) of systems that no table here has: AMD's of eight MI325X for Llama 2
70B and Mixtral, NVIDIA's of GB300 for Llama 3.1 405B and DeepSeek-R1.

Of prompts nothing is known but the mean: a gamma distribution of shape 2 is assumed, cut at the longest. Those of Llama
3.1 405B scatter no more than times to first tokens do where prompts have cards of their own (NVIDIA's run with Dynamo
in the open division, 9 in 10 below 1.65 of the mean), and are taken to scatter so.

Every ``BLOCK`` requests have one length from each of as many equal parts of the distribution, in an order drawn by
chance: what a load of some hundreds takes does not depend on the draw.

Quantiles of outputs are straight lines in (normal quantile, logarithm), as a log-normal's would be. Of the shorter half
only the mean is known, by that of all: below the median the line falls as steeply as makes the mean 1.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

BLOCK = 50
_NORMAL = NormalDist()
_POINTS = 2000
_HALVINGS = 60
_STEEPEST = 4.0


@dataclass(frozen=True)
class Scatter:
    """Lengths over their mean at the quantiles of ``AT``."""

    ratios: tuple[float, ...]

    AT = (0.5, 0.9, 0.95, 0.97, 0.99, 0.999)

    def at(self, share: float) -> float:
        """The ratio that ``share`` of all lengths stay below."""
        return self._ratio(share, self._below)

    def _ratio(self, share: float, below: float) -> float:
        if share <= self.AT[0]:
            return self.ratios[0] * math.exp(below * _NORMAL.inv_cdf(max(share, 1e-9)))
        place = next((n for n, at in enumerate(self.AT[1:], 1) if share <= at), len(self.AT) - 1)
        low, high = (_NORMAL.inv_cdf(self.AT[n]) for n in (place - 1, place))
        part = (_NORMAL.inv_cdf(min(share, 1 - 1e-9)) - low) / (high - low)
        first, last = math.log(self.ratios[place - 1]), math.log(self.ratios[place])
        return min(self.ratios[-1], math.exp(first + part * (last - first)))

    @cached_property
    def _below(self) -> float:
        """Slope of the logarithm below the median."""
        low, high = 0.0, _STEEPEST
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            mean = sum(self._ratio((n + 0.5) / _POINTS, middle) for n in range(_POINTS)) / _POINTS
            low, high = (middle, high) if mean > 1 else (low, middle)
        return (low + high) / 2


@dataclass(frozen=True)
class Gamma2:
    """A gamma distribution of shape 2 over its mean."""

    def at(self, share: float) -> float:
        """The ratio that ``share`` of all lengths stay below."""
        low, high = 0.0, 40.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if 1 - (1 + middle) * math.exp(-middle) < share else (low, middle)
        return low / 2


def lengths(count: int, of: Scatter | Gamma2, mean: float, longest: int, source: random.Random) -> list[int]:
    """``count`` lengths of 2 tokens to ``longest``, of this mean after what is longer was cut."""
    ratios = [of.at((n + 0.5) / BLOCK) for n in range(BLOCK)]

    def cut(factor: float) -> list[int]:
        return [max(2, min(longest, round(factor * mean * ratio))) for ratio in ratios]

    low, high = 0.5, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(cut(middle)) < mean * BLOCK else (low, middle)
    parts = cut(high)
    found: list[int] = []
    while len(found) < count:
        source.shuffle(parts)
        found += parts
    return found[:count]


LLAMA2 = Scatter((0.874, 1.826, 2.213, 2.514, 3.192, 3.827))
MIXTRAL = Scatter((0.796, 1.891, 2.452, 2.877, 3.937, 6.738))
LLAMA31_405B = Scatter((1.054, 1.440, 1.542, 1.620, 1.775, 2.406))
LLAMA31_405B_PROMPTS = Scatter((0.913, 1.649, 1.949, 2.190, 2.771, 4.313))
DEEPSEEK_R1 = Scatter((0.565, 2.474, 3.474, 4.196, 5.362, 5.804))
