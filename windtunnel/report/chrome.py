"""The same spans as JSON trace events, for chrome://tracing and tools that read that format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from windtunnel.report import grouping, timeline_data, words
from windtunnel.report.files import write_bytes
from windtunnel.results.run_result import RunResult

_MICRO = 1e6


def write(results: Sequence[RunResult], path: str | Path) -> None:
    """Write the trace. Raises E925 where that cannot be done."""
    write_bytes(path, encode(results))


def encode(results: Sequence[RunResult]) -> bytes:
    """The bytes of the trace file."""
    events = [event for number, result in enumerate(results) for event in _events(result, number + 1)]
    trace = {"displayTimeUnit": "ms", "traceEvents": events}
    return json.dumps(trace, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _events(result: RunResult, pid: int) -> Iterator[dict[str, object]]:
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": words.title(result)}}
    for tid, name in enumerate(result.tracks):
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}
        yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}
    for span in result.spans:
        event: dict[str, object] = {
            "ph": "X",
            "pid": pid,
            "tid": span.track,
            "ts": round(span.start_s * _MICRO, 3),
            "dur": round(span.duration_s * _MICRO, 3),
            "name": timeline_data.unnamed(result.tracks[span.track]),
        }
        if span.op >= 0:
            op = result.ops[span.op]
            texts = {"module": op.module, "line": op.line, "shapes": op.shapes, "limit": op.limit}
            event["name"] = op.name
            event["cat"] = grouping.kind(op)
            event["args"] = {**{key: text for key, text in texts.items() if text}, "critical": span.critical}
        yield event
