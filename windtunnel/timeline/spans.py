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
    before = _ended_at(order, end[order], start, np.arange(len(start))).tolist()
    waits = sorted(timeline.waits)
    awaited = _ended_at(order, end[order], np.array([until for _, _, until in waits]), None).tolist()
    positions = timeline.position.tolist()
    current = int(order[-1])
    while current >= 0 and not critical[current]:
        critical[current] = True
        found = before[current]
        if found < 0:
            place = bisect.bisect_left(waits, (positions[current],)) - 1
            found = awaited[place] if place >= 0 else -1
        current = found
    return critical


def _ended_at(
    order: npt.NDArray[np.int64],
    sorted_end: npt.NDArray[np.float64],
    times_s: npt.NDArray[np.float64],
    own: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.int64]:
    """For each time an interval that ends then, other than its ``own``; -1 where there is none."""
    tolerance = 1e-12 + 1e-9 * times_s  # sums of the same times in another order
    place = np.searchsorted(sorted_end, times_s + tolerance, side="right") - 1
    if own is not None:  # an interval without length ends where it starts
        place -= (place >= 0) & (order[place] == own)
    hits = (place >= 0) & (sorted_end[place] >= times_s - tolerance)
    return np.where(hits, order[place], -1)


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
