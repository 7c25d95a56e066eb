"""A number that says how sure it is and where it came from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Where a number came from, most trustworthy first."""

    MEASURED = "measured"
    CALIBRATED = "calibrated"
    ANALYTIC = "analytic"
    DATASHEET = "datasheet"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 80 % interval.

    Attributes:
        value: best estimate, in the unit that the name of the field holding it states.
        low, high: 80 % interval; ``low <= value <= high``.
        shares: how much of the value rests on each source; fractions that sum to 1.
    """

    value: float
    low: float
    high: float
    shares: tuple[tuple[Source, float], ...]

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"interval {self.low}..{self.high} does not hold {self.value}")

    @classmethod
    def exact(cls, value: float, source: Source = Source.ANALYTIC) -> Estimate:
        """A number without uncertainty, such as a count."""
        return cls(value, value, value, ((source, 1.0),))

    @classmethod
    def within(cls, value: float, relative: float, source: Source) -> Estimate:
        """``value`` give or take the factor ``1 + relative``, from one source."""
        return cls(value, value / (1 + relative), value * (1 + relative), ((source, 1.0),))

    @property
    def source(self) -> Source:
        """The source that most of the value rests on."""
        return max(self.shares, key=lambda share: share[1])[0]

    def scaled(self, factor: float) -> Estimate:
        """The estimate times a positive constant."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.shares)

    def inverse(self, numerator: float) -> Estimate:
        """``numerator`` divided by the estimate: a rate from a time. Low and high change places."""
        if self.value <= 0:
            raise ValueError("a rate needs a time above zero")
        low = numerator / self.high
        high = numerator / self.low if self.low > 0 else math.inf
        return Estimate(numerator / self.value, low, high, self.shares)

    def to_dict(self) -> dict[str, object]:
        """The JSON form: ``value``, ``low``, ``high``, ``source``, ``source_shares``."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "source": str(self.source),
            "source_shares": {str(source): share for source, share in self.shares},
        }


def total(parts: Iterable[Estimate], correlation: float = 0.5) -> Estimate:
    """The sum of estimates whose errors are correlated.

    Half-widths add as ``sqrt(rho * (sum w)^2 + (1 - rho) * sum w^2)``: with ``correlation`` 1 they add
    up, with 0 they add in quadrature. Errors of kernels on one chip share causes (clock, library
    version), so independence would promise too much; 0.5 is a convention, checked by coverage.
    """
    items = list(parts)
    value = math.fsum(item.value for item in items)
    low = value - _combined([item.value - item.low for item in items], correlation)
    high = value + _combined([item.high - item.value for item in items], correlation)
    weights: dict[Source, float] = {}
    for item in items:
        for source, share in item.shares:
            weights[source] = weights.get(source, 0.0) + share * abs(item.value)
    return Estimate(value, low, high, normalised_shares(weights))


def normalised_shares(weights: dict[Source, float]) -> tuple[tuple[Source, float], ...]:
    """Weights by source as fractions that sum to 1, in the order of trust."""
    whole = math.fsum(weights.values())
    if whole <= 0:
        return ((Source.ANALYTIC, 1.0),)
    return tuple((source, weights[source] / whole) for source in Source if weights.get(source))


def _combined(widths: list[float], correlation: float) -> float:
    together = math.fsum(widths) ** 2
    apart = math.fsum(width * width for width in widths)
    return math.sqrt(correlation * together + (1 - correlation) * apart)
