"""Scaling over clusters of several sizes, as a table for a terminal."""

from __future__ import annotations

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


def lines(result: RunResult, strong: bool, width: int) -> list[str]:
    """Title, table, and what efficiency means."""
    kind = "Strong scaling, one global batch" if strong else "Weak scaling, a batch for every card"
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
        units.seconds(point.exposed_comm_s),
        units.seconds(point.bubble_s) if point.bubble_s else "",
        units.binary_bytes(point.peak_reserved_bytes),
        point.limit,
    )
