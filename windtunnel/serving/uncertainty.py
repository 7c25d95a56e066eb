"""80 % intervals of what a deployment is said to do.

Two causes that know nothing of each other: the kernels and links of a step (``cost`` and ``network``, their errors
half shared within a chip), and everything between kernels and users (the engine's own time, gaps between kernels,
kernels that a recipe leaves out or a version of an engine does not have yet). The second, ``ENGINE_SPREAD``, is
what makes the two together hold 80 % of the static batches and prompt passes of the calibration set. Widths add
in quadrature, as logarithms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from windtunnel.estimate import Estimate, Source, normalised_shares
from windtunnel.recipes.layers.cached import Batch
from windtunnel.serving.deployment import Deployment

CORRELATED = 0.5**0.5
"""``estimate.total`` with correlation 0.5 and many small parts: the root of a half of the summed widths."""
ENGINE_SPREAD = 0.20
"""Half-width in logarithms of seconds. Of the 45 calibration rows of ``infer_trtllm_overview`` 39 run kernels that
engines still have, 30 of these lie inside; six ran TensorRT-LLM 0.6's decode attention for grouped queries, which read
the cache once a query head and was replaced in 0.7: they took 1.6 to 2.2 times as long as today's kernels would.
"""
ASSUMED_SPREAD = 0.10
"""The same for each thing that a measurement does not state and a default was taken for (assumed)."""


@dataclass(frozen=True, slots=True)
class Width:
    """Factors on seconds, and what the seconds rest on."""

    low: float
    high: float
    shares: tuple[tuple[Source, float], ...]

    def widened(self, assumed: int) -> Width:
        """This with ``assumed`` things that were not stated."""
        spread = ASSUMED_SPREAD * math.sqrt(assumed)
        low, high = math.hypot(math.log(self.low), spread), math.hypot(math.log(self.high), spread)
        return Width(math.exp(-low), math.exp(high), self.shares)

    def rate(self, value: float) -> Estimate:
        """A rate bound by these seconds."""
        return Estimate(value, value / self.high, value / self.low, self.shares)

    def seconds(self, value: float) -> Estimate:
        """Seconds that are bound by these."""
        return Estimate(value, value * self.low, value * self.high, self.shares)


def width_of(deployment: Deployment, batch: Batch) -> Width:
    """How far off a step of this batch may be."""
    seconds = deployment.step.priced(batch)
    if not seconds.device:
        spread = math.exp(ENGINE_SPREAD)
        return Width(1 / spread, spread, ((Source.ANALYTIC, 1.0),))
    low = max(1e-3, 1 - (1 - seconds.low / seconds.device) * CORRELATED)
    high = 1 + (seconds.high / seconds.device - 1) * CORRELATED
    return Width(
        math.exp(-math.hypot(math.log(low), ENGINE_SPREAD)),
        math.exp(math.hypot(math.log(high), ENGINE_SPREAD)),
        normalised_shares(deployment.step.prices.sources),
    )


def width_at(deployment: Deployment, batch: float, context: float) -> Width:
    """How far off a step of a mean batch may be."""
    return width_of(deployment, Batch(sequences=max(1, round(batch)), context=max(1, round(context))))
