"""Lines over two axes, each linear from zero or logarithmic. Numbers in, paths and marks out.

Paths live in a box of 1000 × 1000 that the page stretches; marks are placed by fractions of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

BOX = 1000
COLORS = 9
_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400)
TIME_MARKS = (
    *(factor * 10.0**power for power in range(-6, 0) for factor in (1, 2, 5)),
    *map(float, _SECONDS),
)
"""What a logarithmic axis of seconds is marked with."""
MOST_MARKS = 7
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark on an axis: a fraction from the left or the bottom, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. ``dots``: where its points are, as fractions from the left and the bottom, with what they say."""

    name: str
    path: str
    color: int
    dashed: bool
    dots: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LinePlot:
    """Curves with their axes."""

    title: str
    across: str
    lines: tuple[Line, ...]
    x: tuple[Mark, ...]
    y: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A curve to draw; ``labels``: one a point, drawn as dots."""

    name: str
    points: Points
    dashed: bool = False
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """Linear from ``low``, or logarithmic; ``say`` words a mark."""

    low: float
    high: float
    say: Callable[[float], str]
    logarithmic: bool = False
    unit: float = 1.0  # marks of a linear axis are round multiples of it
    candidates: tuple[float, ...] = ()  # what a logarithmic axis is marked with, where not powers of ten

    def place(self, value: float) -> float:
        """Fraction of the axis, held at its ends."""
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def marks(self) -> tuple[Mark, ...]:
        """Round values: about five of equal distance, or 1, 2 and 5 of each power of ten."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if self.high < 150 * self.low else (1,)
            values = [factor * 10.0**power for power in powers for factor in factors]
            if self.candidates:
                values = [value for value in self.candidates if self.low <= value <= self.high]
                values = values[:: -(-len(values) // MOST_MARKS) or 1]
        else:
            rough = (self.high - self.low) / 5 / self.unit
            scale = 10.0 ** math.floor(math.log10(rough))
            step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= rough * 0.999)
            step *= self.unit
            values = [
                index * step for index in range(round(self.low / step), math.floor(self.high / step) + 1)
            ]
        inside = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
        return tuple(Mark(self.place(value), self.say(value)) for value in inside)


def linear(values: Sequence[float], say: Callable[[float], str]) -> Axis:
    """From zero to a little above the largest."""
    return Axis(0.0, 1.04 * max([*values, 0.0]) or 1.0, say)


def over_time(last_s: float) -> Axis:
    """Seconds from zero, marked in seconds, minutes or hours."""
    unit, name = next(
        (u, n) for u, n in ((3600.0, "h"), (60.0, "min"), (1.0, "s")) if last_s >= 2 * u or u == 1
    )
    return Axis(0.0, max(last_s, 1e-6), lambda value: f"{value / unit:,g} {name}", unit=unit)


def logarithmic(values: Sequence[float], say: Callable[[float], str]) -> Axis:
    """Around the positive values, at least a factor of two wide."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    if high < 2 * low:
        low, high = low / 1.5, high * 1.5
    return Axis(low, high, say, logarithmic=True)


def seconds(values: Sequence[float], say: Callable[[float], str]) -> Axis:
    """A logarithmic axis of seconds, marked at what clocks show."""
    axis = logarithmic(values, say)
    return Axis(axis.low, axis.high, say, logarithmic=True, candidates=TIME_MARKS)


def plot(title: str, across: str, series: Sequence[Series], x: Axis, y: Axis) -> LinePlot:
    """The curves on these axes."""
    lines = []
    for index, one in enumerate(series):
        places = [(x.place(a), y.place(b)) for a, b in one.points]
        path = "M" + "L".join(f"{a * BOX:.1f} {(1 - b) * BOX:.1f}" for a, b in places) if places else ""
        dots = tuple((a, b, text) for (a, b), text in zip(places, one.labels, strict=False))
        lines.append(Line(one.name, path, index % COLORS, one.dashed, dots))
    return LinePlot(title, across, tuple(lines), x.marks(), y.marks())
