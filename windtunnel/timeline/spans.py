"""Intervals for the timeline view, with the critical path marked; of very many the longest are kept."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from windtunnel.program.program import Program
from windtunnel.results.run_result import Span
from windtunnel.timeline.prices import OpPrice
from windtunnel.timeline.step import StepTimeline

SPANS_MAX = 20_000
HOST_TRACK = 0


def tracks(program: Program) -> tuple[str, ...]:
    """The host, the streams, the process groups."""
    groups = [group.label or f"group of {len(group.ranks)}" for group in program.groups]
    return ("host", *program.streams, *groups)


def tracks_of_sites(program: Program, prices: Sequence[OpPrice]) -> npt.NDArray[np.int64]:
    """Track 0 is the host, then the streams, then the process groups."""
    group = np.array([price.group for price in prices], np.int64)[program.sites[:, 0]]
    return np.where(group >= 0, 1 + len(program.streams) + group, 1 + program.sites[:, 1])


def spans(
    program: Program,
    timeline: StepTimeline,
    row_of_site: npt.NDArray[np.int64],
    track_of_site: npt.NDArray[np.int64],
    most: int | None = None,
    path: npt.NDArray[np.bool_] | None = None,
) -> tuple[Span, ...]:
    """What to draw: device intervals, ``most`` (SPANS_MAX) at most, and on the host its waits and delays.

    ``path``: the critical one where more than this rank decides it.
    """
    most = SPANS_MAX if most is None else most
    site = timeline.site
    row, track = row_of_site[site], track_of_site[site]
    start, length = timeline.start_s, timeline.end_s - timeline.start_s
    critical = critical_path(timeline) if path is None else path
    row, track, start, length, critical = _merged(row, track, start, length, critical, most)
    drawn = [
        Span(*values)
        for values in zip(track.tolist(), start.tolist(), length.tolist(), row.tolist(), critical.tolist())
    ]
    drawn += [Span(HOST_TRACK, max(0.0, a), b - max(0.0, a), -1) for _, a, b in timeline.waits[:most]]
    drawn += [Span(HOST_TRACK, a, b - a, -1) for a, b in timeline.delays[:most]]
    return tuple(drawn)


def critical_path(timeline: StepTimeline) -> npt.NDArray[np.bool_]:
    """Which intervals the end of the step hangs on.

    Backwards from the last to end: an interval that starts where another ends hung on it; one that starts
    later hung on the host, and the host, before that, on the last interval it waited for.
    """
    return joint_critical_path([timeline])[0]


def joint_critical_path(timelines: Sequence[StepTimeline]) -> list[npt.NDArray[np.bool_]]:
    """The same for ranks that were replayed together: what starts where an interval of another rank ends, and
    where none of its own does, hung on that one, before it hung on the host."""
    starts = np.concatenate([timeline.start_s for timeline in timelines])
    ends = np.concatenate([timeline.end_s for timeline in timelines])
    critical = np.zeros(len(starts), dtype=bool)
    offsets = np.cumsum([0, *(len(timeline.start_s) for timeline in timelines)])
    if len(starts):
        own = [_Own(timeline, int(offset)) for timeline, offset in zip(timelines, offsets, strict=False)]
        order = np.argsort(ends, kind="stable")
        of_others = (
            _ended_at(order, ends[order], starts, np.arange(len(starts))).tolist()
            if len(timelines) > 1
            else [-1] * len(starts)
        )
        first = offsets.tolist()
        current = int(order[-1])
        path: set[int] = set()  # Python's own containers: one look at each interval of a long path
        while current >= 0 and current not in path:
            path.add(current)
            rank = own[bisect.bisect_right(first, current) - 1]
            found = rank.ended_before(current)
            found = of_others[current] if found < 0 else found
            current = rank.awaited_before(current) if found < 0 else found
        critical[list(path)] = True
    return [critical[begin:end] for begin, end in pairwise(offsets.tolist())]


class _Own:
    """What an interval hung on, on its own rank."""

    def __init__(self, timeline: StepTimeline, offset: int) -> None:
        start, end = timeline.start_s, timeline.end_s
        order = np.argsort(end, kind="stable")
        self._offset = offset
        self._before = _ended_at(order, end[order], start, np.arange(len(start))).tolist()
        self._waits = sorted(timeline.waits)
        self._awaited = _ended_at(
            order, end[order], np.array([until for _, _, until in self._waits]), None
        ).tolist()
        self._positions = timeline.position.tolist()

    def ended_before(self, number: int) -> int:
        """The interval at whose end this one starts, or -1."""
        found: int = self._before[number - self._offset]
        return found + self._offset if found >= 0 else -1

    def awaited_before(self, number: int) -> int:
        """The interval that the host last waited for before it came to this one, or -1."""
        place = bisect.bisect_left(self._waits, (self._positions[number - self._offset],)) - 1
        found: int = self._awaited[place] if place >= 0 else -1
        return found + self._offset if found >= 0 else -1


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
    most: int,
) -> Columns:
    """Keep the longest half of the limit; neighbours among the rest on one track become one interval each."""
    if len(row) <= most:
        return row, track, start, length, critical
    longest = np.zeros(len(row), dtype=bool)
    longest[np.argsort(-length, kind="stable")[: most // 2]] = True
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
