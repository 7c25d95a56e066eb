"""Two results of the same script: what changed, largest first. Before is the measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.report import grouping
from windtunnel.report.text_table import Shorten, TextColumn, plain, render
from windtunnel.results import columns
from windtunnel.results.columns import PART_KEYS, Unit
from windtunnel.results.run_result import OpRow, RunResult

MAX_ROWS = 12
WORTH_A_ROW = 0.0005
"""Share of the step before below which a change is not listed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Device time of one operation at one place, before and after."""

    name: str
    place: str
    before_s: float
    after_s: float

    @property
    def change_s(self) -> float:
        """Positive: slower now."""
        return self.after_s - self.before_s


def rows(before: RunResult, after: RunResult) -> list[Difference]:
    """Parts of the step and operations by place that changed, largest change first."""
    least_s = WORTH_A_ROW * max(before.step_time_s.value, after.step_time_s.value)
    found = [
        Difference(
            columns.label(key), "part of the step", getattr(before.parts, key), getattr(after.parts, key)
        )
        for key in PART_KEYS
        if key != "compute_s"
    ]
    old, new = _by_place(before), _by_place(after)
    for name, place in {**old, **new}:
        key = (name, place)
        found.append(Difference(name, place, old.get(key, 0.0), new.get(key, 0.0)))
    changed = [row for row in found if abs(row.change_s) > least_s]
    return sorted(changed, key=lambda row: (-abs(row.change_s), row.name, row.place))


def table(before: RunResult, after: RunResult, width: int, names: Sequence[str]) -> list[str]:
    """The largest changes as text under the two names; empty when nothing changed."""
    changed = rows(before, after)
    if not changed:
        return []
    whole_s = max(before.step_time_s.value, max(row.before_s for row in changed), 1e-9)
    factor, unit = columns.scale(Unit.SECONDS, whole_s)
    headers = (
        TextColumn("Largest changes", shorten=Shorten.TAIL, least=16),
        TextColumn("where", rank=2, shorten=Shorten.HEAD, least=16),
        TextColumn(f"{names[0]} {unit}", right=True, rank=1),
        TextColumn(f"{names[1]} {unit}", right=True, rank=1),
        TextColumn(f"change {unit}", right=True),
    )
    cells = [
        (
            plain(row.name),
            plain(row.place),
            f"{row.before_s / factor:,.2f}",
            f"{row.after_s / factor:,.2f}",
            f"{row.change_s / factor:+,.2f}",
        )
        for row in changed[:MAX_ROWS]
    ]
    lines = render(headers, cells, width)
    if len(changed) > MAX_ROWS:
        lines.append(f" and {len(changed) - MAX_ROWS} smaller changes")
    return lines


def _by_place(result: RunResult) -> dict[tuple[str, str], float]:
    groups = grouping.grouped(_kernels(result), lambda row: f"{grouping.op_name(row)}\0{_place(row)}")
    return {(grouping.op_name(group.rows[0]), _place(group.rows[0])): group.seconds for group in groups}


def _kernels(result: RunResult) -> list[OpRow]:
    return [row for row in result.ops if row.seconds > 0]


def _place(row: OpRow) -> str:
    module = grouping.generic_module(row.module)
    return f"{module} ({row.line})" if module and row.line else module or row.line
