"""The page of a comparison: one offline file, readable without JavaScript."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.report import align_words, html
from windtunnel.report.files import write_bytes
from windtunnel.results.align_result import AlignResult, Curves

BOX = 1000
MAX_POINTS = 600
SMOOTHING = 0.9


@dataclass(frozen=True, slots=True)
class Line:
    """One curve as a path in a box of 1000 × 1000."""

    name: str
    path: str
    kind: str  # reference, candidate or replica


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark on an axis: a fraction from the left or the bottom, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves over steps with their axes."""

    title: str
    lines: tuple[Line, ...]
    x: tuple[Mark, ...]
    y: tuple[Mark, ...]


def render(result: AlignResult) -> str:
    """The page as text."""
    plots = [
        plot("Loss by step", result.losses, smooth=False),
        plot(f"Loss, moving average ({SMOOTHING})", result.losses, smooth=True),
        plot("Norm of all gradients by step, before clipping", result.norms, smooth=False),
    ]
    return html.fill("align.html.j2", result=result, words=align_words, plots=plots, data="")


def write(result: AlignResult, path: str | Path) -> None:
    """Write the page. Raises E925 where that cannot be done."""
    write_bytes(path, render(result).encode())


def plot(title: str, curves: Curves, *, smooth: bool) -> Plot:
    """Reference, candidate and replicas on one logarithmic axis; what is not finite is left out."""
    named = [(f"replica {i + 1}", "replica", curve) for i, curve in enumerate(curves.replicas)]
    named += [("reference", "reference", curves.reference), ("candidate", "candidate", curves.candidate)]
    drawn = [(name, kind, _smoothed(curve) if smooth else list(curve)) for name, kind, curve in named]
    values = [v for _, _, curve in drawn for v in curve if math.isfinite(v) and v > 0]
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    high = high if high > low else 2 * low
    last = max(1, max(len(curve) for _, _, curve in drawn) - 1)
    lines = tuple(Line(name, _path(curve, last, low, high), kind) for name, kind, curve in drawn)
    return Plot(title, lines, _steps(last), _levels(low, high))


def _path(curve: Sequence[float], last: int, low: float, high: float) -> str:
    stride = max(1, math.ceil(len(curve) / MAX_POINTS))
    pieces = []
    pen_down = False
    for step in range(0, len(curve), stride):
        value = curve[step]
        if not math.isfinite(value) or value <= 0:
            pen_down = False
            continue
        across, up = step / last, _place(value, low, high)
        pieces.append(f"{'L' if pen_down else 'M'}{across * BOX:.1f} {(1 - up) * BOX:.1f}")
        pen_down = True
    return "".join(pieces)


def _place(value: float, low: float, high: float) -> float:
    return 0.03 + 0.94 * math.log(value / low) / math.log(high / low)


def _steps(last: int) -> tuple[Mark, ...]:
    step = max(1, int(_round_up(last / 6)))
    return tuple(Mark(at / last, str(at)) for at in range(0, last + 1, step))


def _levels(low: float, high: float) -> tuple[Mark, ...]:
    """Round values in range: 1, 2 and 5 of each power of ten, or equal distances where the range is short."""
    if high / low < 4:
        step = _round_up((high - low) / 4)
        levels = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
    else:
        first, past = math.floor(math.log10(low)), math.ceil(math.log10(high))
        factors = (1, 2, 5) if past - first <= 3 else (1,)
        levels = [factor * 10.0**power for power in range(first, past + 1) for factor in factors]
    return tuple(Mark(_place(level, low, high), f"{level:.4g}") for level in levels if low <= level <= high)


def _round_up(rough: float) -> float:
    scale = 10.0 ** math.floor(math.log10(rough))
    return next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= rough * 0.999)


def _smoothed(curve: Sequence[float]) -> list[float]:
    average, out = 0.0, []
    for index, value in enumerate(curve):
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        out.append(average / (1 - SMOOTHING ** (index + 1)))
    return out
