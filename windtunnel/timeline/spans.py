"""Intervals for the timeline view, with the critical path marked; of very many the longest are kept."""

from __future__ import annotations

import bisect

import numpy as np
import numpy.typing as npt

from windtunnel.program.program import Program
from windtunnel.results.run_result import Span
from windtunnel.timeline.step import StepTimeline

SPANS_MAX = 20_000
HOST_TRACK = 0


def tracks(program: Program) -> tuple[str, ...]:
    """The host, the streams, the process groups."""
    groups = [group.label or f"group of {len(group.ranks)}" for group in program.groups]
    return ("host", *program.streams, *groups)


def spans(
    program: Program,
    timeline: StepTimeline,
    row_of_site: npt.NDArray[np.int64],
    track_of_site: npt.NDArray[np.int64],
) -> tuple[Span, ...]:
    """What to draw: device intervals, and on the host its waits and delays."""
    site = timeline.site
    row, track = row_of_site[site], track_of_site[site]
    start, length = timeline.start_s, timeline.end_s - timeline.start_s
    critical = critical_path(timeline)
    row, track, start, length, critical = _merged(row, track, start, length, critical)
    drawn = [
        Span(*values)
        for values in zip(track.tolist(), start.tolist(), length.tolist(), row.tolist(), critical.tolist())
    ]
    drawn += [Span(HOST_TRACK, max(0.0, a), b - max(0.0, a), -1) for _, a, b in timeline.waits[:SPANS_MAX]]
    drawn += [Span(HOST_TRACK, a, b - a, -1) for a, b in timeline.delays[:SPANS_MAX]]
    return tuple(drawn)


def critical_path(timeline: StepTimeline) -> npt.NDArray[np.bool_]:
    """Which intervals the end of the step hangs on.

    Backwards from the last to end: an interval that starts where another ends hung on it; one that starts
    later hung on the host, and the host, before that, on the last interval it waited for.
    """
    start, end = timeline.start_s, timeline.end_s
    critical = np.zeros(len(start), dtype=bool)
    if not len(start):
        return critical
    order = np.argsort(end, kind="stable")
    sorted_end = end[order]
    waits = sorted(timeline.waits)
    current = int(order[-1])
    while not critical[current]:
        critical[current] = True
        found = _ended_at(order, sorted_end, float(start[current]), current)
        if found is None:
            found = _waited_for(order, sorted_end, waits, int(timeline.position[current]))
        if found is None:
            break
        current = found
    return critical


def _ended_at(
    order: npt.NDArray[np.int64], sorted_end: npt.NDArray[np.float64], time_s: float, current: int
) -> int | None:
    tolerance = 1e-12 + 1e-9 * time_s  # sums of the same times in another order
    low = int(np.searchsorted(sorted_end, time_s - tolerance))
    high = int(np.searchsorted(sorted_end, time_s + tolerance, side="right"))
    for place in range(high - 1, low - 1, -1):
        if int(order[place]) != current:
            return int(order[place])
    return None


def _waited_for(
    order: npt.NDArray[np.int64],
    sorted_end: npt.NDArray[np.float64],
    waits: list[tuple[int, float, float]],
    position: int,
) -> int | None:
    place = bisect.bisect_left(waits, (position,)) - 1
    return _ended_at(order, sorted_end, waits[place][2], -1) if place >= 0 else None


Columns = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.bool_],
]


def _merged(
    row: npt.NDArray[np.int64],
    track: npt.NDArray[np.int64],
    start: npt.NDArray[np.float64],
    length: npt.NDArray[np.float64],
    critical: npt.NDArray[np.bool_],
) -> Columns:
    """Keep the longest half of the limit; neighbours among the rest on one track become one interval each."""
    if len(row) <= SPANS_MAX:
        return row, track, start, length, critical
    longest = np.zeros(len(row), dtype=bool)
    longest[np.argsort(-length, kind="stable")[: SPANS_MAX // 2]] = True
    order = np.lexsort((start, track))
    row, track, start, length, critical = (
        row[order],
        track[order],
        start[order],
        length[order],
        critical[order],
    )
    longest = longest[order]
    begins = np.ones(len(row), dtype=bool)
    begins[1:] = longest[1:] | longest[:-1] | (track[1:] != track[:-1])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(row)) - 1
    single = first == last
    return (
        np.where(single, row[first], -1),
        track[first],
        start[first],
        start[last] + length[last] - start[first],
        np.logical_or.reduceat(critical, first),
    )
