"""Operations as a tree, kind → operation → module → source line, for the page's sortable table.

Layers that differ only by their number are one module. A page holds at most ``MAX_NODES`` rows; under each
parent the smallest are folded into one row that says how many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from windtunnel.report import grouping, words
from windtunnel.report.grouping import Group
from windtunnel.results import columns
from windtunnel.results.columns import Unit
from windtunnel.results.run_result import OpRow

MAX_NODES = 1500
LEVELS: tuple[Callable[[OpRow], str], ...] = (
    grouping.kind,
    grouping.op_name,
    lambda row: grouping.generic_module(row.module) or "outside any module",
    lambda row: row.line or "outside the script",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One row of the table. ``parent`` is the number of the row above it in the tree, or -1."""

    number: int
    parent: int
    level: int
    name: str
    detail: str
    seconds: float
    interval: str  # in the unit that the time is printed in
    share: float  # of device time
    count: int
    flops_per_s: float
    bytes_per_s: float
    limit: str
    source: str  # of most of the time
    sources: str  # all of them
    has_children: bool


def build(ops: Iterable[OpRow]) -> list[Node]:
    """Rows in order of display: each parent before its children, most time first."""
    timed = [row for row in ops if row.seconds > 0]
    whole_s = sum(row.seconds for row in timed)
    if whole_s <= 0:
        return []
    # more rows than this cannot be shown, so begin where half of the page is single operations
    longest = sorted((row.seconds for row in timed), reverse=True)
    smallest_s = longest[MAX_NODES // 2] if len(longest) > MAX_NODES else 0.0
    while True:
        nodes: list[Node] = []
        _add(nodes, timed, -1, 0, whole_s, smallest_s)
        if len(nodes) <= MAX_NODES:
            return nodes
        smallest_s = max(2 * smallest_s, 1e-5 * whole_s)


def _add(
    nodes: list[Node], rows: Iterable[OpRow], parent: int, level: int, whole_s: float, smallest_s: float
) -> None:
    groups = grouping.grouped(rows, LEVELS[level])
    shown = [group for group in groups if group.seconds >= smallest_s] or groups[:1]
    for group in shown:
        number = len(nodes)
        nodes.append(_node(number, parent, level, group, whole_s))
        if level + 1 < len(LEVELS):
            _add(nodes, group.rows, number, level + 1, whole_s, smallest_s)
    folded = groups[len(shown) :]
    if folded:
        rest = grouping.grouped((row for group in folded for row in group.rows), lambda _: "")[0]
        nodes.append(_node(len(nodes), parent, level, rest, whole_s, name=f"{len(folded)} more"))


def _node(number: int, parent: int, level: int, group: Group, whole_s: float, name: str = "") -> Node:
    slowest = max(group.rows, key=lambda row: row.seconds)
    is_leaf = level + 1 == len(LEVELS) or bool(name)
    detail = " · ".join(part for part in (slowest.shapes, slowest.formula) if part)
    return Node(
        number=number,
        parent=parent,
        level=level,
        name=name or group.name,
        detail=detail if is_leaf and not name else "",
        seconds=group.seconds,
        interval=_interval(group),
        share=group.seconds / whole_s,
        count=group.count,
        flops_per_s=group.flops / group.seconds,
        bytes_per_s=group.bytes_moved / group.seconds,
        limit=words.limited_by(group.limit, group.peak_fraction, group.bandwidth_fraction),
        source=grouping.grouped(group.rows, lambda row: str(row.source))[0].name,
        sources=", ".join(sorted({str(row.source) for row in group.rows})),
        has_children=not is_leaf,
    )


def _interval(group: Group) -> str:
    (_, low, high), unit = columns.numbers(Unit.SECONDS, (group.seconds, group.low_s, group.high_s))
    return f"{low} – {high} {unit}"
