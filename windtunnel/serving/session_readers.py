"""Rows of traces that know block keys or sessions: see ``trace_readers`` for their columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

from windtunnel.serving.recorded_sessions import Named, Recorded, Timed
from windtunnel.serving.request import Request
from windtunnel.serving.trace_rows import Row, hash_of, number_of, request_of, with_keys

SESSION_BLOCK = 64
"""Tokens of the blocks that tables of coding-agent sessions count."""
SESSION_RESOLUTION_S = 1.0
"""They say when a call was sent in whole seconds."""
CALLS_RESOLUTION_S = 1e-3
"""Logs of agent calls: two processes' clocks."""


def hashed(row: Row) -> Recorded:
    """A row with keys: of a log of calls, of Bailian, of Mooncake."""
    keys = tuple(map(int, cast("list[int]", row["keys" if "began_s" in row else "hash_ids"])))
    if "began_s" in row:  # what serve --record wrote
        began_s = number_of(row["began_s"])
        request = request_of(began_s, row["prompt_tokens"], row["output_tokens"])
        return _answered(
            with_keys(request, keys, 16),
            str(row.get("task", "")),
            number_of(row["ended_s"]) - began_s,
            CALLS_RESOLUTION_S,
        )
    if "block" in row:  # a log of agent calls
        request = request_of(number_of(row["t"]), row["prompt_tokens"], row["completion_tokens"])
        request = with_keys(request, keys, int(number_of(row["block"])))
        return _answered(request, str(row.get("tag", "")), row.get("dur"), CALLS_RESOLUTION_S)
    bailian = "chat_id" in row
    at = number_of(row["timestamp"])
    request = request_of(at if bailian else at / 1e3, row["input_length"], row["output_length"])
    request = with_keys(request, keys, 16 if bailian else 512)
    link = Named(str(row["chat_id"]), (str(row.get("parent_chat_id", "")),), None) if bailian else None
    return Recorded(request, link)


def _answered(request: Request, session: str, took: object, resolution_s: float, agent: str = "") -> Recorded:
    """A call of a session; ``took``: seconds to its answer, or nothing where it is not known."""
    if not session:
        return Recorded(request)
    took_s = max(0.0, number_of(took)) if took not in (None, "") else 0.0
    return Recorded(replace(request, session=session), Timed(took_s, resolution_s, agent))


def session_calls(row: Row) -> list[Callable[[], Recorded]]:
    """A whole session, its calls in order, each read when asked."""
    name, tokens = str(row["id"]), int(number_of(row["block_size"]))
    # keys are known within the session only: spread sessions apart
    start = (abs(hash_of(name)) % (1 << 30)) << 24
    return [partial(_session_call, call, name, start, tokens) for call in cast("list[Row]", row["requests"])]


def _session_call(call: Row, name: str, start: int, tokens: int) -> Recorded:
    keys = tuple(start + int(key) for key in cast("list[int]", call.get("hash_ids", [])))
    request = request_of(number_of(call["t"]), call["in"], call["out"])
    request = with_keys(request, keys, tokens) if keys else request
    return _answered(request, name, call.get("api_time"), SESSION_RESOLUTION_S)


def next_call(row: Row, last: dict[str, tuple[int, ...]]) -> Recorded:
    """A session's next call; ``last``: keys of the call before it, by session and agent."""
    session, agent = str(row["trace"]), str(row.get("agent", ""))
    name = f"{session}:{agent}"
    request = request_of(number_of(row["t"]), row["in_tok"], row["out_tok"])
    blocks, before = int(number_of(row["blocks"])), last.get(name, ())
    shared = before[: min(int(number_of(row["shared_prev_blocks"])), blocks)]
    first = (hash_of(f"{name} {row.get('seq', len(before))}") % (1 << 34)) << 20
    keys = last[name] = (*shared, *range(first, first + blocks - len(shared)))
    request = with_keys(request, keys, SESSION_BLOCK) if keys else request
    return _answered(request, session, row.get("api_time"), SESSION_RESOLUTION_S, agent)


def turn(row: Row, turns: dict[str, Recorded]) -> Recorded:
    """A row that names its session or what it waits for; ``turns``: calls by name, and the last of every session."""
    session = str(row.get("session_id") or "")
    before = turns.get(f"last of {session}") if session else None
    names = tuple(str(name) for name in cast("list[str]", row.get("wait_for") or ()))
    if not names and before and isinstance(before.link, Named):
        names = (before.link.name,)
    waited = [turns[name] for name in names if name in turns]
    gap_s = None
    if "timestamp" not in row or "wait_for" in row:
        gap_s = (number_of(row.get("delay") or 0) + number_of(row.get("tool_wait_ms") or 0)) / 1e3
    # without a time of its own it comes no earlier than what it waits for: only the order of rows is read off this
    at_s = max((one.request.arrival_s for one in waited), default=0.0) + (gap_s or 0.0)
    at_s = number_of(row["timestamp"]) / 1e3 if row.get("timestamp") is not None else at_s
    request = replace(request_of(at_s, row["input_length"], row["output_length"]), session=session)
    keys = tuple(int(key) for key in cast("list[int]", row.get("hash_ids") or ()))
    request = with_keys(request, keys, 512) if keys else request
    name = str(row.get("request_id") or f"{session}:{len(turns)}")
    found = turns[name] = Recorded(request, Named(name, names, gap_s))
    if session:
        turns[f"last of {session}"] = found
    return found
