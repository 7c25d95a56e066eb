"""The recorded ranks of a cluster side by side: pipeline stages, and how long each waits."""

from __future__ import annotations

from windtunnel import units
from windtunnel.report.text_table import TextColumn, render
from windtunnel.results.run_result import RunResult

_COLUMNS = (
    TextColumn("Rank", right=True),
    TextColumn("stands for", right=True),
    TextColumn("ends at", right=True, rank=3),
    TextColumn("compute", right=True),
    TextColumn("exposed comm", right=True, rank=1),
    TextColumn("bubble", right=True),
    TextColumn("peak memory", right=True, rank=2),
)


def lines(result: RunResult, width: int) -> list[str]:
    """The table; nothing where one rank stands for all."""
    if len(result.ranks) < 2:
        return []
    rows = [
        (
            f"{row.rank:,}",
            f"{row.count:,}",
            units.seconds(row.step_time_s),
            units.seconds(row.parts.compute_s),
            units.seconds(row.parts.exposed_comm_s),
            units.seconds(row.parts.bubble_s),
            units.binary_bytes(row.peak_reserved_bytes),
        )
        for row in result.ranks
    ]
    return render(_COLUMNS, rows, width)
