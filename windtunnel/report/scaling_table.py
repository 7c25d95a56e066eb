"""Scaling over clusters of several sizes, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel import units
from windtunnel.report.text_table import TextColumn, bar, plain, render
from windtunnel.results.run_result import RunResult, ScalingPoint

_COLUMNS = (
    TextColumn("Cards", right=True),
    TextColumn("step", right=True),
    TextColumn("tokens/s/GPU", right=True),
    TextColumn("MFU", right=True, rank=2),
    TextColumn("efficiency", right=True),
    TextColumn("", rank=5),
    TextColumn("exposed comm", right=True, rank=3),
    TextColumn("bubble", right=True, rank=4),
    TextColumn("peak memory", right=True, rank=1),
    TextColumn("limited by"),
)


def title(points: Sequence[ScalingPoint]) -> str:
    """Strong where all sizes work on the same global batch, weak where the batch grows with the cards."""
    strong = len({point.work_per_step for point in points}) == 1
    return "Strong scaling, one global batch" if strong else "Weak scaling, a batch for every card"


def lines(result: RunResult, width: int) -> list[str]:
    """Title, table, and what efficiency means."""
    kind = title(result.scaling)
    rows = [_row(point) for point in result.scaling]
    note = f"efficiency: throughput per card against {result.scaling[0].cards:,} cards"
    return [f"{plain(result.chip_title)} · {kind}", "", *render(_COLUMNS, rows, width), "", note]


def _row(point: ScalingPoint) -> tuple[str, ...]:
    rate, mfu = point.tokens_per_s_per_gpu, point.mfu
    return (
        f"{point.cards:,}",
        units.seconds(point.step_time_s.value),
        units.count(round(rate.value)) if rate is not None else "",
        units.percent(mfu.value) if mfu is not None else "",
        units.percent(point.efficiency),
        bar(point.efficiency),
        units.seconds(point.parts.exposed_comm_s),
        units.seconds(point.parts.bubble_s) if point.parts.bubble_s else "",
        units.binary_bytes(point.peak_reserved_bytes),
        point.limit,
    )
