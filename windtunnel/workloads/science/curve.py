"""Rates against problem size on one chip, and how two chips compare along the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from windtunnel.estimate import Estimate, normalised_shares


@dataclass(frozen=True, slots=True)
class Point:
    """One size of the problem.

    Attributes:
        size: atoms, ligands: what the curve's ``size_name`` says.
        rate: in the curve's ``rate_name`` (nanoseconds a day, ligands a second), with an 80 % interval.
        limit: what binds most of the time.
    """

    size: float
    rate: Estimate
    limit: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """Rate against size on one chip, run one way: ``eager`` or ``fused``."""

    chip: str
    execution: str
    size_name: str
    rate_name: str
    points: tuple[Point, ...]


def ratios(over: Curve, under: Curve) -> tuple[Point, ...]:
    """How many times faster ``over`` is at each size, with an 80 % interval.

    Widths add in quadrature, in logarithms: the spread of the engine model is that of chips left out of its
    fit, so two chips miss independently.
    """
    points = []
    for a, b in zip(over.points, under.points, strict=True):
        value = a.rate.value / b.rate.value
        up = math.hypot(math.log(a.rate.high / a.rate.value), math.log(b.rate.value / b.rate.low))
        down = math.hypot(math.log(a.rate.value / a.rate.low), math.log(b.rate.high / b.rate.value))
        weights = dict(a.rate.shares)
        for source, share in b.rate.shares:
            weights[source] = weights.get(source, 0.0) + share
        rate = Estimate(value, value * math.exp(-down), value * math.exp(up), normalised_shares(weights))
        points.append(Point(a.size, rate, a.limit, a.label))
    return tuple(points)
