"""What the page shows, worked out before the template: bars, trees, plots, shares. Empty parts are absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel import units
from windtunnel.estimate import Source
from windtunnel.program.program import Notice, NoticeKind
from windtunnel.report import (
    cluster_plots,
    flame,
    grouping,
    long_run_table,
    notices,
    op_tree,
    plots,
    scaling_table,
    timeline_data,
    words,
)
from windtunnel.report.cluster_plots import Lane, Piece, ScalingPlot
from windtunnel.report.comparison import NOTHING, ComparedRow
from windtunnel.report.flame import Frame
from windtunnel.report.op_tree import Node
from windtunnel.report.plots import MemoryPlot, Roofline
from windtunnel.report.timeline_data import Busy
from windtunnel.report.words import Metric, StepGroup
from windtunnel.results import columns
from windtunnel.results.columns import PART_KEYS
from windtunnel.results.run_result import LiveStorage, MemoryResult, RunResult

COLORS = 10
MAX_LARGEST = 20
MAX_SOURCE_KINDS = 4


@dataclass(frozen=True, slots=True)
class Slice:
    """One piece of a bar: its share of the whole and its colour."""

    name: str
    share: float
    amount: float
    color: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class SourceShare:
    """How much of the step time rests on one source, and the kinds of operations that do."""

    source: str
    share: float
    kinds: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The step time if one number of the chip changed, against the one predicted."""

    what: str
    change: str
    seconds: float
    relative: float


@dataclass(frozen=True, slots=True)
class View:
    """Everything the template of one result reads besides the result itself."""

    title: str
    verdict: str
    metrics: tuple[Metric, ...]
    steps: tuple[StepGroup, ...]
    parts: tuple[Slice, ...]
    kinds: tuple[Slice, ...]
    tree: tuple[Node, ...]
    frames: tuple[Frame, ...]
    flame_depth: int
    busy: tuple[tuple[Busy, str], ...]
    timeline: dict[str, object]
    memory_plot: MemoryPlot | None
    categories: tuple[Slice, ...]
    largest: tuple[LiveStorage, ...]
    roofline: Roofline | None
    what_if: tuple[WhatIf, ...]
    sources: tuple[SourceShare, ...]
    notices: tuple[tuple[NoticeKind, str, tuple[Notice, ...]], ...]
    lanes: tuple[Lane, ...]
    lane_colors: tuple[tuple[str, int], ...]
    scaling: ScalingPlot | None
    scaling_title: str
    long_run: tuple[Piece, ...]
    long_run_sentence: str


@dataclass(frozen=True, slots=True)
class ComparedBar:
    """The step of one result as slices; ``width`` is its length against the longest."""

    name: str
    seconds: float
    width: float
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class ComparedMemory:
    """Memory of one result; ``width`` is the length of its bar against the longest."""

    name: str
    memory: MemoryResult
    width: float
    slices: tuple[Slice, ...]


def view(result: RunResult) -> View:
    """All of the page for one result."""
    kinds = _kinds(result)
    color_of = {piece.name: piece.color for piece in kinds}
    category_color = {name: index % COLORS for index, name in enumerate(result.memory.categories)}
    busy = timeline_data.busy(result)
    frames = flame.frames(result.ops)
    return View(
        title=words.title(result),
        verdict=words.verdict(result),
        metrics=tuple(words.metrics(result)),
        steps=tuple(words.step_groups(result)),
        parts=parts(result),
        kinds=kinds,
        tree=tuple(op_tree.build(result.ops)),
        frames=tuple(frames),
        flame_depth=flame.depth(frames),
        busy=tuple((track, plots.busy_path(track)) for track in busy if any(track.fractions)),
        timeline={**timeline_data.columns(result), "colors": color_of},
        memory_plot=plots.memory_plot(result.memory, category_color),
        categories=_categories(result, category_color),
        largest=tuple(sorted(result.memory.largest, key=lambda s: -s.bytes)[:MAX_LARGEST]),
        roofline=plots.roofline(result, color_of),
        what_if=_what_if(result),
        sources=_sources(result),
        notices=tuple(
            (kind, notices.HEADINGS[kind], tuple(members))
            for kind, members in notices.by_kind(result.notices)
        ),
        lanes=cluster_plots.lanes(result),
        lane_colors=tuple(cluster_plots.COLOR_OF.items()),
        scaling=cluster_plots.scaling(result.scaling),
        scaling_title=scaling_table.title(result.scaling),
        long_run=cluster_plots.long_run(result.long_run) if result.long_run is not None else (),
        long_run_sentence=long_run_table.sentence(result.long_run) if result.long_run is not None else "",
    )


def parts(result: RunResult) -> tuple[Slice, ...]:
    """The disjoint parts of the step."""
    whole_s = result.step_time_s.value
    if whole_s <= 0:
        return ()
    found = [(key, getattr(result.parts, key), index) for index, key in enumerate(PART_KEYS)]
    return tuple(
        Slice(columns.label(key), seconds / whole_s, seconds, index, columns.column(key).definition)
        for key, seconds, index in found
        if seconds > 0
    )


def compared_bars(results: Sequence[RunResult], names: Sequence[str]) -> list[ComparedBar]:
    """One bar per result in one scale."""
    longest_s = max(result.step_time_s.value for result in results)
    if longest_s <= 0:
        return []
    return [
        ComparedBar(name, result.step_time_s.value, result.step_time_s.value / longest_s, parts(result))
        for name, result in zip(names, results, strict=True)
    ]


def compared_kinds(results: Sequence[RunResult]) -> list[ComparedRow]:
    """Device time by kind, one column per result, most time first."""
    times: dict[str, list[float]] = {}
    for number, result in enumerate(results):
        for piece in _kinds(result):
            times.setdefault(piece.name, [0.0] * len(results))[number] = piece.amount
    ordered = sorted(times.items(), key=lambda item: (-max(item[1]), item[0]))
    return [
        ComparedRow(name, "", tuple(units.seconds(time_s) if time_s else NOTHING for time_s in row))
        for name, row in ordered
    ]


def compared_memory(results: Sequence[RunResult], names: Sequence[str]) -> list[ComparedMemory]:
    """Memory at the peak of each result; bars in one scale, so that a larger card has a longer one."""
    largest = max(
        (max(r.memory.usable_bytes, r.memory.peak_reserved_bytes.value) for r in results), default=0
    )
    color_of = {name: index % COLORS for index, name in enumerate(results[0].memory.categories)}
    return [
        ComparedMemory(name, result.memory, _whole(result) / max(largest, 1), _categories(result, color_of))
        for name, result in zip(names, results, strict=True)
    ]


def _whole(result: RunResult) -> float:
    return max(result.memory.peak_reserved_bytes.value, result.memory.usable_bytes, 1)


def _kinds(result: RunResult) -> tuple[Slice, ...]:
    """Device time by kind; the colours of kinds on the whole page."""
    groups = grouping.grouped((row for row in result.ops if row.seconds > 0), grouping.kind)
    whole_s = sum(group.seconds for group in groups)
    return tuple(
        Slice(group.name, group.seconds / whole_s, group.seconds, min(index, COLORS - 1))
        for index, group in enumerate(groups)
    )


def _categories(result: RunResult, color_of: dict[str, int]) -> tuple[Slice, ...]:
    """What is held at the peak, with what the allocator keeps beyond it."""
    memory = result.memory
    reserved = memory.peak_reserved_bytes.value
    whole = _whole(result)
    held = sorted(((n, s) for n, s in memory.peak_by_category if s > 0), key=lambda item: -item[1])
    slices = [Slice(name, size / whole, size, color_of.get(name, COLORS - 1)) for name, size in held]
    slack = reserved - sum(size for _, size in held)
    if slack > 0:
        slices.append(Slice("fragmentation and cache", slack / whole, slack, COLORS))
    return tuple(slices)


def _what_if(result: RunResult) -> tuple[WhatIf, ...]:
    base_s = result.step_time_s.value
    if base_s <= 0:
        return ()
    rows = [WhatIf(s.what, s.change, s.step_time_s, s.step_time_s / base_s - 1) for s in result.sensitivities]
    return tuple(sorted(rows, key=lambda row: -abs(row.relative)))


def _sources(result: RunResult) -> tuple[SourceShare, ...]:
    if result.step_time_s.value <= 0:
        return ()
    return tuple(
        SourceShare(str(source), share, _kinds_of(result, source))
        for source, share in sorted(result.step_time_s.shares, key=lambda item: -item[1])
    )


def _kinds_of(result: RunResult, source: Source) -> str:
    rows = [row for row in result.ops if row.source is source and row.seconds > 0]
    return ", ".join(group.name for group in grouping.grouped(rows, grouping.kind)[:MAX_SOURCE_KINDS])
