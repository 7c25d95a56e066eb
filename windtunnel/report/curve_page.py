"""The page of rates over problem size: curves with their intervals, ratios, and what they rest on. One offline file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel import units
from windtunnel.report import html
from windtunnel.report.files import write_bytes
from windtunnel.workloads.science.curve import Curve, Point

BOX = 1000
COLORS = 10


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark on an axis: a fraction from the left or the bottom, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """One curve as a line and its band, paths in a box of 1000 × 1000. ``color`` counts from 0."""

    name: str
    line: str
    band: str
    color: int
    dashed: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves on logarithmic axes."""

    title: str
    curves: tuple[Drawn, ...]
    x: tuple[Mark, ...]
    y: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What the page says.

    Attributes:
        answer: one line. claim: a claimed ratio, drawn as a level; None without one.
        ratios: named points, ``over ÷ under``. assumed: facts by chip.
    """

    title: str
    answer: str
    curves: Sequence[Curve]
    ratios: Sequence[tuple[str, Sequence[Point]]]
    claim: float | None
    grounds: str
    assumed: Mapping[str, Mapping[str, str]]


def render(page: Page) -> str:
    """The page as text."""
    size, rate = page.curves[0].size_name, page.curves[0].rate_name
    rates = [(f"{c.chip}, {c.execution}", c.points, c.execution != "fused") for c in page.curves]
    plots = [plot(f"{rate} against {size}", rates)]
    if page.ratios:
        named = [(name, points, False) for name, points in page.ratios]
        plots.append(plot(f"Ratio against {size}", named, level=page.claim))
    return html.fill("curves.html.j2", page=page, plots=plots, significant=units.significant, data="")


def write(page: Page, path: str | Path) -> None:
    """Write the page. Raises E925 where that cannot be done."""
    write_bytes(path, render(page).encode())


def plot(title: str, named: Sequence[tuple[str, Sequence[Point], bool]], level: float | None = None) -> Plot:
    """Curves with bands; ``level`` is drawn as a dashed line of its own."""
    sizes = [point.size for _, points, _ in named for point in points]
    values = [value for _, points, _ in named for p in points for value in (p.rate.low, p.rate.high)]
    x, y = _Axis.around(sizes), _Axis.around([*values, *([level] if level else [])])
    drawn = [
        Drawn(name, _path(points, x, y), _band(points, x, y), index % COLORS, dashed)
        for index, (name, points, dashed) in enumerate(named)
    ]
    if level:
        height = BOX * (1 - y.place(level))
        drawn.append(Drawn(f"claimed: {level:g}", f"M0 {height:.1f}H{BOX}", "", len(named) % COLORS, True))
    return Plot(title, tuple(drawn), x.marks(), y.marks())


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float  # logarithms
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> _Axis:
        low, high = math.log10(min(values)), math.log10(max(values))
        margin = max(0.05 * (high - low), 0.05)
        return cls(low - margin, high + margin)

    def place(self, value: float) -> float:
        return (math.log10(value) - self.low) / (self.high - self.low)

    def marks(self) -> tuple[Mark, ...]:
        """Marks at 1, 2 and 5 times powers of ten; at the powers alone where those are many."""
        steps = (1, 2, 5) if self.high - self.low < 2.5 else (1,)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        found = [step * 10.0**power for power in powers for step in steps]
        return tuple(
            Mark(self.place(v), f"{v:,.12g}") for v in found if self.low <= math.log10(v) <= self.high
        )


def _path(points: Sequence[Point], x: _Axis, y: _Axis) -> str:
    return "M" + "L".join(_at(point.size, point.rate.value, x, y) for point in points)


def _band(points: Sequence[Point], x: _Axis, y: _Axis) -> str:
    up = [_at(point.size, point.rate.high, x, y) for point in points]
    down = [_at(point.size, point.rate.low, x, y) for point in reversed(points)]
    return "M" + "L".join([*up, *down]) + "Z"


def _at(size: float, value: float, x: _Axis, y: _Axis) -> str:
    return f"{BOX * x.place(size):.1f} {BOX * (1 - y.place(value)):.1f}"
