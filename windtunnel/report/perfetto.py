"""A native Perfetto trace (``.pftrace``) of a step, written without a protobuf library.

One process per result, and one for every further rank of a cluster, with a track per stream and host; names are
interned, and counters show memory by category.
Field numbers are those of Perfetto's ``trace_packet.proto``, ``track_event.proto``, ``interned_data.proto``,
``track_descriptor.proto``, ``debug_annotation.proto``; a test decodes the file with Perfetto's own classes.

Memory is recorded in order of events, not of time, so its counters are spread evenly over the trace and
named accordingly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from windtunnel.report import grouping, timeline_data, words
from windtunnel.report.files import write_bytes
from windtunnel.results.run_result import MemoryResult, OpRow, RankResult, RunResult, Span

_NANO = 1e9
_SEQUENCE = 1
_STATE_CLEARED, _NEEDS_STATE = 1, 2
_BEGIN, _END, _COUNTER = 1, 2, 4
_EXPLICIT_ORDER = 3
_UNIT_BYTES = 3
_ROOM = 1 << 20  # track numbers per result
_RANKS = 1 << 40  # where those of further ranks begin
_PIDS = 1 << 20  # process numbers per result


def write(results: Sequence[RunResult], path: str | Path) -> None:
    """Write the trace. Raises E925 where that cannot be done."""
    write_bytes(path, encode(results))


def encode(results: Sequence[RunResult]) -> bytes:
    """The bytes of the trace file."""
    trace = _Trace()
    for number, result in enumerate(results):
        trace.add(result, number)
    return trace.encoded()


class _Trace:
    """Events under construction. Names are interned last, in the order of the file: a reader must have met
    a name before it is used."""

    def __init__(self) -> None:
        self._descriptors = [_packet(_uint(13, _STATE_CLEARED))]
        self._events: list[tuple[int, Callable[[], bytes]]] = []
        self._interned: dict[int, dict[str, int]] = {}

    def add(self, result: RunResult, number: int) -> None:
        """One result as a process with its tracks."""
        process = (number + 1) * _ROOM
        self._process(process, number + 1, words.title(result))
        for track, name in enumerate(result.tracks):
            self._track(process + 1 + track, process, name, track)
        for span, begin, end in _rounded(result.spans):
            track = process + 1 + span.track
            op = result.ops[span.op] if span.op >= 0 else None
            name = op.name if op else timeline_data.unnamed(result.tracks[span.track])
            self._events.append((begin, partial(self._begin, begin, track, name, op, span.critical)))
            self._events.append((end, partial(_end, end, track)))
        for place, rank in enumerate(result.ranks):
            if rank.spans:
                self._rank(_RANKS + ((number << 20) + place) * _ROOM, number + 1, rank)
        finish = max((span.start_s + span.duration_s for span in result.spans), default=0.0)
        self._memory(process, result.memory, len(result.tracks), finish or result.step_time_s.value)

    def _rank(self, process: int, result: int, rank: RankResult) -> None:
        """A rank that is not the one told in full: a process of its own, intervals with names alone."""
        self._process(process, result * _PIDS + 1 + rank.rank, f"rank {rank.rank}, stands for {rank.count:,}")
        for track, name in enumerate(rank.tracks):
            self._track(process + 1 + track, process, name, track)
        for span, begin, end in _rounded(rank.spans):
            name = rank.names[span.op] if span.op >= 0 else timeline_data.unnamed(rank.tracks[span.track])
            where = process + 1 + span.track
            self._events.append((begin, partial(self._begin, begin, where, name, None, span.critical)))
            self._events.append((end, partial(_end, end, where)))

    def encoded(self) -> bytes:
        """Everything in order of time; equal times keep the order in which they were added."""
        self._events.sort(key=lambda event: event[0])
        return b"".join([*self._descriptors, *(packet() for _, packet in self._events)])

    def _process(self, uuid: int, pid: int, name: str) -> None:
        process = _uint(1, pid) + _text(6, name)
        descriptor = _message(60, _uint(1, uuid), _message(3, process), _uint(11, _EXPLICIT_ORDER))
        self._descriptors.append(_packet(descriptor))

    def _track(self, uuid: int, parent: int, name: str, rank: int, counter: bytes = b"") -> None:
        descriptor = _message(60, _uint(1, uuid), _uint(5, parent), _text(2, name), counter, _uint(12, rank))
        self._descriptors.append(_packet(descriptor))

    def _begin(self, at: int, track: int, name: str, op: OpRow | None, critical: bool) -> bytes:
        interned: list[bytes] = []
        parts = [_uint(9, _BEGIN), _uint(11, track), _uint(10, self._iid(2, name, interned))]
        if op:
            parts.append(_uint(3, self._iid(1, grouping.kind(op), interned)))
            parts += self._annotations(op, interned)
        if critical:
            parts.append(_message(4, _uint(1, self._iid(3, "critical", interned)), _uint(2, 1)))
        return _event(at, b"".join(parts), interned)

    def _annotations(self, op: OpRow, interned: list[bytes]) -> Iterator[bytes]:
        texts = {
            "module": op.module,
            "line": op.line,
            "shapes": op.shapes,
            "limit": op.limit,
            "formula": op.formula,
        }
        for key, value in texts.items():
            if value:
                name = _uint(1, self._iid(3, key, interned))
                yield _message(4, name, _uint(17, self._iid(29, value, interned)))

    def _memory(self, process: int, memory: MemoryResult, rank: int, finish_s: float) -> None:
        if not memory.timeline:
            return
        counter = _message(8, _uint(3, _UNIT_BYTES))
        names = [*(f"memory, {name}" for name in memory.categories), "memory, reserved"]
        tracks = [process + _ROOM // 2 + index for index in range(len(names))]
        for index, (uuid, name) in enumerate(zip(tracks, names, strict=True)):
            self._track(uuid, process, f"{name} (in order of events)", rank + index, counter)
        for fraction, sizes, reserved in memory.timeline:
            at = round(fraction * finish_s * _NANO)
            for uuid, size in zip(tracks, (*sizes, reserved), strict=True):
                self._events.append((at, partial(_count, at, uuid, size)))

    def _iid(self, kind: int, value: str, interned: list[bytes]) -> int:
        """Number of a string of one kind (field of ``InternedData``); a new one is added to ``interned``."""
        known = self._interned.setdefault(kind, {})
        if value not in known:
            known[value] = len(known) + 1
            interned.append(_message(kind, _uint(1, known[value]), _text(2, value)))
        return known[value]


def _rounded(spans: Sequence[Span]) -> Iterator[tuple[Span, int, int]]:
    """Spans by track with begin and end in nanoseconds; neighbours that rounding would make overlap, and
    Perfetto nest, are cut."""
    ordered = sorted(spans, key=lambda span: (span.track, span.start_s))
    for index, span in enumerate(ordered):
        begin = round(span.start_s * _NANO)
        end = begin + max(0, round(span.duration_s * _NANO))
        following = ordered[index + 1] if index + 1 < len(ordered) else None
        if following is not None and following.track == span.track:
            end = max(begin, min(end, round(following.start_s * _NANO)))
        yield span, begin, end


def _end(at: int, track: int) -> bytes:
    return _event(at, _uint(9, _END) + _uint(11, track), [])


def _count(at: int, track: int, value: int) -> bytes:
    return _event(at, _uint(9, _COUNTER) + _uint(11, track) + _uint(30, value), [])


def _event(at: int, track_event: bytes, interned: list[bytes]) -> bytes:
    data = _message(12, *interned) if interned else b""
    return _packet(_uint(8, at), _message(11, track_event), data, _uint(13, _NEEDS_STATE))


def _packet(*parts: bytes) -> bytes:
    return _message(1, *parts, _uint(10, _SEQUENCE))


def _message(field: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode("utf-8", "replace"))


def _uint(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
