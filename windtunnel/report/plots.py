"""Geometry of the page's drawings: memory over time, roofline, busy tracks. Numbers in, paths and ticks out.

Paths live in a box of 1000 × 1000 that the page stretches to its width; labels and dots are placed by
fractions of it, so text keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel import units
from windtunnel.report import grouping
from windtunnel.report.timeline_data import Busy
from windtunnel.results.columns import Unit, text
from windtunnel.results.run_result import Ceiling, MemoryResult, OpRow, RunResult

BOX = 1000
MAX_POINTS = 500
MAX_DOTS = 160
LEAST_DECADES = 2


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where (fraction from the left or from the bottom) and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Area:
    """One band of a stacked plot."""

    name: str
    path: str
    color: int


@dataclass(frozen=True, slots=True)
class MemoryPlot:
    """Memory over time. ``usable_at``: height of the usable line; None when it is above the plot."""

    areas: tuple[Area, ...]
    reserved: str
    usable_at: float | None
    ticks: tuple[Tick, ...]
    peak_at: float


@dataclass(frozen=True, slots=True)
class Dot:
    """Operations of one shape in the roofline; diameter in pixels, so that its area is its time."""

    left: float
    bottom: float
    diameter: float
    color: int
    kind: str
    label: str
    seconds: float
    intensity: float
    flops_per_s: float


@dataclass(frozen=True, slots=True)
class Roof:
    """A ceiling as a path, with a label near its end."""

    path: str
    label: str
    left: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """``left_out``: share of device time of operations without counted FLOPs, which have no place here;
    ``above``: whether some operation does more than its peak, as causal attention counted in full does."""

    dots: tuple[Dot, ...]
    roofs: tuple[Roof, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    left_out: float
    above: bool


def memory_plot(memory: MemoryResult, color_of: dict[str, int]) -> MemoryPlot | None:
    """Stacked bytes by category with the reserved line; None where nothing was recorded."""
    rows = _thinned(memory.timeline)
    if len(rows) < 2:
        return None
    reserved_peak = max(row[2] for row in rows)
    near = memory.usable_bytes if memory.usable_bytes < 1.6 * reserved_peak else 0
    top = 1.04 * max(reserved_peak, near, 1)
    base = [0.0] * len(rows)
    areas = []
    for index, name in enumerate(memory.categories):
        heights = [low + row[1][index] for low, row in zip(base, rows)]
        if any(row[1][index] for row in rows):
            areas.append(Area(name, _band(rows, base, heights, top), color_of.get(name, index)))
        base = heights
    peak = max(rows, key=lambda row: sum(row[1]))
    reserved = _line([(row[0], row[2] / top) for row in rows])
    usable_at = memory.usable_bytes / top if memory.usable_bytes <= top else None
    return MemoryPlot(tuple(areas), reserved, usable_at, _linear_ticks(top / units.GIB), peak[0])


def roofline(result: RunResult, color_of: dict[str, int]) -> Roofline | None:
    """Achieved FLOP/s over FLOP per byte, log-log; None where no operation has counted FLOPs."""
    whole_s = sum(row.seconds for row in result.ops)
    groups = _placed(result.ops)
    if not groups or whole_s <= 0:
        return None
    roofs = _relevant(result.ceilings, {row.precision for group in groups for row in group.rows})
    intensities = [group.flops / group.bytes_moved for group in groups]
    rates = [group.flops / group.seconds for group in groups]
    flat = [roof.value for roof in roofs if not roof.per_byte]
    x = _decades([*intensities, *_ridges(roofs)])
    y = _decades([*rates, *flat])
    dots = tuple(
        Dot(
            left=x.place(intensity),
            bottom=y.place(rate),
            diameter=max(5.0, min(64.0, 90 * math.sqrt(group.seconds / whole_s))),
            color=color_of.get(grouping.kind(group.rows[0]), 0),
            kind=grouping.kind(group.rows[0]),
            label=group.name,
            seconds=group.seconds,
            intensity=intensity,
            flops_per_s=rate,
        )
        for group, intensity, rate in zip(groups, intensities, rates)
    )
    placed_s = sum(row.seconds for row in result.ops if row.flops > 0 and row.bytes_moved > 0)
    lines = tuple(_roof(roof, roofs, x, y) for roof in roofs)
    above = any(row.peak_fraction > 1 for group in groups for row in group.rows)
    return Roofline(dots, lines, x.ticks(), y.ticks("FLOP/s"), 1 - placed_s / whole_s, above)


def busy_path(track: Busy) -> str:
    """The area under a track's busy fractions."""
    last = len(track.fractions) - 1
    points = [(index / max(1, last), fraction) for index, fraction in enumerate(track.fractions)]
    return f"M0 {BOX}L" + _coordinates(points) + f"L{BOX} {BOX}Z"


def _placed(ops: Sequence[OpRow]) -> list[grouping.Group]:
    counted = [row for row in ops if row.flops > 0 and row.bytes_moved > 0 and row.seconds > 0]
    return grouping.grouped(
        counted,
        lambda row: (
            f"{grouping.op_name(row)} · {grouping.generic_module(row.module)} · {row.shapes} · {row.phase}"
        ),
    )[:MAX_DOTS]


def _relevant(ceilings: Sequence[Ceiling], precisions: set[str]) -> list[Ceiling]:
    """Bandwidths, and the peaks of precisions that are used (all peaks where none matches)."""
    used = [roof for roof in ceilings if roof.per_byte or roof.label.split()[0] in precisions]
    return used if any(not roof.per_byte for roof in used) else list(ceilings)


def _ridges(roofs: Sequence[Ceiling]) -> list[float]:
    slopes = [roof.value for roof in roofs if roof.per_byte]
    flats = [roof.value for roof in roofs if not roof.per_byte]
    return [max(flats) / slope for slope in slopes] if flats else []


@dataclass(frozen=True, slots=True)
class _LogAxis:
    low: int  # powers of ten
    high: int

    def place(self, value: float) -> float:
        """Fraction of the axis; outside values are held at its ends."""
        return min(1.0, max(0.0, (math.log10(value) - self.low) / (self.high - self.low)))

    def ticks(self, unit: str = "") -> tuple[Tick, ...]:
        """A mark at each power of ten, or at every second where they are many."""
        powers = range(self.low, self.high + 1, 1 if self.high - self.low <= 6 else 2)
        return tuple(Tick((p - self.low) / (self.high - self.low), _power(p, unit)) for p in powers)


def _decades(values: Sequence[float]) -> _LogAxis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return _LogAxis(min(low, high - LEAST_DECADES), high)


def _power(power: int, unit: str) -> str:
    value = 10.0**power
    return text(Unit.FLOP_PER_S, value).replace(".00", "").replace(".0", "") if unit else f"{value:,g}"


def _roof(roof: Ceiling, roofs: Sequence[Ceiling], x: _LogAxis, y: _LogAxis) -> Roof:
    left, right = 10.0**x.low, 10.0**x.high
    slopes = [other.value for other in roofs if other.per_byte]
    flats = [other.value for other in roofs if not other.per_byte]
    if roof.per_byte:
        begin = max(left, 10.0**y.low / roof.value)
        end = min(right, max(flats) / roof.value) if flats else right
        ends = [(begin, roof.value * begin), (end, roof.value * end)]
        label_at = (x.place(begin * 1.15), y.place(roof.value * begin * 1.15))
        label = f"{roof.label} {text(Unit.BYTES_PER_S, roof.value)}"
    else:
        begin = max(left, roof.value / max(slopes)) if slopes else left
        ends = [(begin, roof.value), (right, roof.value)]
        label_at = (1.0, y.place(roof.value))
        label = f"{roof.label} {text(Unit.FLOP_PER_S, roof.value)}"
    path = _line([(x.place(across), y.place(up)) for across, up in ends])
    return Roof(path, label, *label_at)


_MemoryRow = tuple[float, tuple[int, ...], int]


def _thinned(rows: Sequence[_MemoryRow]) -> list[_MemoryRow]:
    """At most ``MAX_POINTS`` rows: of each bucket the one with most memory, so that peaks stay."""
    if len(rows) <= MAX_POINTS:
        return list(rows)
    size = math.ceil(len(rows) / MAX_POINTS)
    buckets = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    return [max(bucket, key=lambda row: sum(row[1])) for bucket in buckets]


def _band(rows: Sequence[_MemoryRow], low: Sequence[float], high: Sequence[float], top: float) -> str:
    there = [(row[0], value / top) for row, value in zip(rows, high)]
    back = [(row[0], value / top) for row, value in zip(rows, low)][::-1]
    return f"M{_coordinates(there)}L{_coordinates(back)}Z"


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + _coordinates(points)


def _coordinates(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{across * BOX:.1f} {(1 - up) * BOX:.1f}" for across, up in points)


def _linear_ticks(top: float) -> tuple[Tick, ...]:
    rough = top / 5
    scale = 10 ** math.floor(math.log10(rough))
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= rough)
    return tuple(Tick(index * step / top, f"{index * step:,g}") for index in range(int(top / step) + 1))
