"""Drawings of a cluster: the step of every recorded rank, efficiency over sizes, where the days go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.report.plots import BOX, Tick
from windtunnel.results import columns
from windtunnel.results.columns import LONG_RUN_KEYS, PART_KEYS
from windtunnel.results.run_result import LongRun, RankResult, RunResult, ScalingPoint

COLOR_OF = {"forward": 0, "recomputation": 6, "backward": 2, "optimizer": 5, "communication": 3}
"""What ranks do, and the page's colour for it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a lane or bar: fractions of its length, and a colour."""

    left: float
    width: float
    color: int
    what: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One recorded rank."""

    name: str
    row: RankResult
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ScalingBar:
    """Seconds that the smallest size's share of work takes at one size, by part; ``width`` against the longest."""

    name: str
    efficiency: float
    width: float
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ScalingPlot:
    """Efficiency over the number of cards, logarithmic. ``points``: left and bottom as fractions."""

    path: str
    points: tuple[tuple[float, float, str], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[ScalingBar, ...]
    parts: tuple[tuple[str, int], ...]


def lanes(result: RunResult) -> tuple[Lane, ...]:
    """The recorded ranks one under the other in one scale of time; nothing for a single rank."""
    end_s = max((rank.step_time_s for rank in result.ranks), default=0.0)
    end_s = max(end_s, *(p.start_s + p.duration_s for rank in result.ranks for p in rank.lane), 0.0)
    if len(result.ranks) < 2 or end_s <= 0:
        return ()
    return tuple(
        Lane(
            f"rank {rank.rank:,}",
            rank,
            tuple(
                Piece(
                    piece.start_s / end_s, piece.duration_s / end_s, COLOR_OF.get(piece.what, 9), piece.what
                )
                for piece in rank.lane
            ),
        )
        for rank in result.ranks
    )


def scaling(points: Sequence[ScalingPoint]) -> ScalingPlot | None:
    """The curve and the bars; nothing for fewer than two sizes."""
    if len(points) < 2:
        return None
    first, last = math.log2(points[0].cards), math.log2(points[-1].cards)
    top = max(1.0, *(point.efficiency for point in points)) * 1.05
    placed = [
        (
            (math.log2(p.cards) - first) / (last - first),
            p.efficiency / top,
            f"{p.cards:,} cards: {p.efficiency:.1%}",
        )
        for p in points
    ]
    path = "M" + "L".join(f"{x * BOX:.1f} {(1 - y) * BOX:.1f}" for x, y, _ in placed)
    y_ticks = tuple(Tick(value / 100 / top, f"{value} %") for value in range(0, int(100 * top) + 1, 20))
    longest = max(1 / point.efficiency for point in points)
    return ScalingPlot(
        path,
        tuple(placed),
        tuple(Tick(x, f"{point.cards:,}") for (x, _, _), point in zip(placed, points, strict=True)),
        y_ticks,
        tuple(_bar(point, longest) for point in points),
        tuple(
            (columns.label(key), color)
            for color, key in enumerate(PART_KEYS)
            if any(getattr(point.parts, key) > 0 for point in points)
        ),
    )


def _bar(point: ScalingPoint, longest: float) -> ScalingBar:
    whole_s = point.parts.total_s
    pieces, left = [], 0.0
    for color, key in enumerate(PART_KEYS):
        share = getattr(point.parts, key) / whole_s if whole_s else 0.0
        if share > 0:
            pieces.append(Piece(left, share, color, columns.label(key)))
        left += share
    return ScalingBar(f"{point.cards:,}", point.efficiency, 1 / point.efficiency / longest, tuple(pieces))


def long_run(run: LongRun) -> tuple[Piece, ...]:
    """Where the days go, as pieces of one bar."""
    pieces, left = [], 0.0
    for color, key in zip((2, 5, 0, 3, 1), LONG_RUN_KEYS, strict=True):
        share = getattr(run, key)
        if share > 0:
            pieces.append(Piece(left, share, color, columns.label(key)))
        left += share
    return tuple(pieces)
