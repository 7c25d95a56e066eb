"""The spans of a step as compact columns for the page's canvas, and as a picture where no script runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.report import grouping
from windtunnel.results.run_result import RunResult, Span

MAX_SPANS = 120_000
BUCKETS = 250
NANO = 1e9
HOST = "host"


@dataclass(frozen=True, slots=True)
class Busy:
    """How busy a track is over the step: one fraction per bucket."""

    track: str
    fractions: tuple[float, ...]


def columns(result: RunResult) -> dict[str, object]:
    """Tracks, spans (nanoseconds; starts as differences along each track) and the operations they name."""
    by_track = _by_track(result)
    used = sorted({span.op for spans in by_track for span in spans if span.op >= 0})
    number = {op: position for position, op in enumerate(used)}
    strings: dict[str, int] = {}
    ops = [
        [
            strings.setdefault(text, len(strings))
            for text in (grouping.op_name(row), row.module, row.line, row.shapes, grouping.kind(row))
        ]
        for row in (result.ops[op] for op in used)
    ]
    return {
        "tracks": [
            _track(name, spans, number) for name, spans in zip(result.tracks, by_track, strict=True) if spans
        ],
        "ops": ops,
        "strings": list(strings),
    }


def unnamed(track: str) -> str:
    """What an interval without an operation is: on the host a wait or the script's own work."""
    return "host waits or works" if track == HOST else "small operations"


def busy(result: RunResult) -> list[Busy]:
    """How busy each track is, in ``BUCKETS`` equal parts of the step."""
    end_s = max((span.start_s + span.duration_s for span in result.spans), default=0.0)
    if end_s <= 0:
        return []
    width_s = end_s / BUCKETS
    filled = [[0.0] * BUCKETS for _ in result.tracks]
    for span in result.spans:
        first = int(span.start_s / width_s)
        last = min(BUCKETS - 1, int((span.start_s + span.duration_s) / width_s))
        for bucket in range(first, last + 1):
            begin_s = max(span.start_s, bucket * width_s)
            finish_s = min(span.start_s + span.duration_s, (bucket + 1) * width_s)
            filled[span.track][bucket] += max(0.0, finish_s - begin_s)
    return [
        Busy(track, tuple(min(1.0, seconds / width_s) for seconds in row))
        for track, row in zip(result.tracks, filled, strict=True)
    ]


def _by_track(result: RunResult) -> list[list[Span]]:
    """Spans in order on each track; where they are too many, neighbours too small to see are merged."""
    tracks: list[list[Span]] = [[] for _ in result.tracks]
    for span in sorted(result.spans, key=lambda span: span.start_s):
        tracks[span.track].append(span)
    longest_s = 1e-6
    while sum(len(spans) for spans in tracks) > MAX_SPANS:
        tracks = [_merged(spans, longest_s) for spans in tracks]
        longest_s *= 2
    return tracks


def _merged(spans: Sequence[Span], longest_s: float) -> list[Span]:
    """Neighbours shorter than ``longest_s`` with a gap below it, as one span without an operation."""
    result: list[Span] = []
    for span in spans:
        before = result[-1] if result else None
        small = span.duration_s < longest_s
        if before is not None and small and before.duration_s < longest_s:
            gap_s = span.start_s - before.start_s - before.duration_s
            if gap_s < longest_s:
                duration_s = span.start_s + span.duration_s - before.start_s
                critical = before.critical or span.critical
                result[-1] = Span(before.track, before.start_s, duration_s, -1, critical)
                continue
        result.append(span)
    return result


def _track(name: str, spans: Sequence[Span], number: dict[int, int]) -> dict[str, object]:
    starts = [round(span.start_s * NANO) for span in spans]
    return {
        "name": name,
        "unnamed": unnamed(name),
        "starts": [start - before for start, before in zip(starts, [0, *starts])],
        "durations": [round(span.duration_s * NANO) for span in spans],
        "ops": [number.get(span.op, -1) for span in spans],
        "critical": [int(span.critical) for span in spans],
    }
