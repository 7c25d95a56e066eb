"""Traffic from published traces. A line that cannot be read is named and left out; the rest is kept.

Formats, known by their columns: Mooncake (timestamp in ms, input_length, output_length, hash_ids of 512 tokens; with
session_id and delay as aiperf reads them, with wait_for and tool_wait_ms as Dynamo's agentic replay does),
Qwen-Bailian (the same with chat_id and 16 tokens), Azure 2023 and 2024 (TIMESTAMP, ContextTokens,
GeneratedTokens), BurstGPT (Timestamp, Request tokens, Response tokens), Vidur length pairs (num_prefill_tokens,
num_decode_tokens, no times), ServeGen clients (trace_csv, dataset: drawn), coding-agent sessions (id, block_size,
requests; or a row a call with the blocks of 64 tokens that it shares with the call before it), ShareGPT (conversations;
token counts are letters ÷ 4, an estimate), what load generators wrote (``benchmark_traces``) or read (aiperf's rows
without hash_ids; vLLM's ``prompt`` and ``output_tokens``; guidellm's ``prompt_tokens_count``), logs of agent calls (t,
prompt_tokens, hash_ids, block, tag and dur; embeddings are prompts of one pass), what ``serve --record`` wrote, and
plain rows with prompt and output tokens. Which calls wait for which: ``recorded_sessions``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from windtunnel.errors import WindtunnelError
from windtunnel.serving.benchmark_traces import Call, calls
from windtunnel.serving.recorded_sessions import Recorded, Timed, linked
from windtunnel.serving.request import Request
from windtunnel.serving.servegen import client_requests
from windtunnel.serving.session_readers import hashed, next_call, session_calls, turn
from windtunnel.serving.trace_files import rows, title_of
from windtunnel.serving.trace_rows import Row, date_s, first_of, number_of, request_of, time_s

BAD_SHOWN = 5
LETTERS_PER_TOKEN = 4
"""For texts without token counts: English text in common vocabularies has about four letters a token."""
_PLAIN_PROMPT = (
    "prompt_tokens", "input_tokens", "input_length", "prompt_len", "in_tok", "prompt_tokens_count",
)  # fmt: skip
_PLAIN_OUTPUT = (
    "output_tokens", "output_length", "completion_tokens", "output_len", "out_tok", "output_tokens_count",
)  # fmt: skip
_PLAIN_TIME = ("timestamp", "arrival_s", "arrival_time", "time", "t")
_UNREADABLE = (KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError)
"""What reading a row raises that is not of its format."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was left out, and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of arrival, starting at 0 s, and the lines that could not be read.

    ``untimed``: calls of sessions that do not say how long their answer took: what waits for them waits the whole
    recorded time from one call to the next, too.
    """

    name: str
    requests: tuple[Request, ...]
    bad: tuple[BadLine, ...]
    untimed: int = 0

    @property
    def seconds(self) -> float:
        """From the first arrival to the last."""
        return self.requests[-1].arrival_s if self.requests else 0.0


def read_trace(path: Path, limit: int = 0) -> Trace:
    """Read a trace, ``-``: from standard input; ``limit``: at most so many requests.

    Raises:
        WindtunnelError: E652, the file cannot be read or holds no request.
    """
    found: list[Recorded] = []
    bad: list[BadLine] = []
    last: dict[str, tuple[int, ...]] = {}
    turns: dict[str, Recorded] = {}
    line = 0
    try:
        for line, row in rows(path, lambda line, why: bad.append(BadLine(line, why))):
            try:
                if "shared_prev_blocks" in row:
                    read = [next_call(row, last)]
                elif "input_length" in row and ("session_id" in row or "wait_for" in row):
                    read = [turn(row, turns)]
                else:
                    read = _requests(line, row, bad)
            except _UNREADABLE as error:
                bad.append(BadLine(line, _reason(error)))
                continue
            found += read
            # rows of many requests overlap in time: all are read, then cut
            if limit and len(found) >= limit and len(read) == 1:
                break
    except (OSError, EOFError, zlib.error) as error:
        if not found:
            raise _unreadable(path, str(error), bad) from None
        bad.append(BadLine(line + 1, f"the file cannot be read from here: {error}"))
    if not found:
        raise _unreadable(path, "no request in it", bad)
    if limit:
        found = sorted(found, key=lambda one: one.request.arrival_s)[:limit]
    untimed = sum(isinstance(one.link, Timed) and not one.link.took_s for one in found)
    return Trace(title_of(path), tuple(linked(found)), tuple(bad), untimed)


def _unreadable(path: Path, why: str, bad: list[BadLine]) -> WindtunnelError:
    values: dict[str, object] = {"file": path}
    values |= {f"line {entry.line}": entry.why for entry in bad[:BAD_SHOWN]}
    return WindtunnelError(
        "E652",
        f"cannot read the trace {title_of(path)}: {why}",
        hint="JSON lines or CSV with arrival, prompt and output tokens: see docs/serving.md",
        values=values,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    if isinstance(error, AttributeError):
        return "not an object"
    return str(error) or type(error).__name__


def _requests(line: int, row: Row, bad: list[BadLine]) -> list[Recorded]:
    """The requests of a row. Of one that holds many, those that cannot be read are left out."""
    run = calls(row)
    if run is not None:
        return _kept(line, [partial(_of_run, call) for call in run], bad)
    if "requests" in row:
        return _kept(line, session_calls(row), bad)
    if "hash_ids" in row or "began_s" in row:
        return [hashed(row)]
    return [Recorded(request) for request in _independent(row)]


def _of_run(call: Callable[[], Call]) -> Recorded:
    return Recorded(request_of(*call()))


def _kept(line: int, entries: Iterable[Callable[[], Recorded]], bad: list[BadLine]) -> list[Recorded]:
    found = []
    for place, read in enumerate(entries, 1):
        try:
            found.append(read())
        except _UNREADABLE as error:
            bad.append(BadLine(line, f"request {place}: {_reason(error)}"))
    return found


def _independent(row: Row) -> list[Request]:
    if "trace_csv" in row:
        return client_requests(row)
    if "conversations" in row:
        return _sharegpt(row)
    if "ContextTokens" in row:
        return [request_of(date_s(row["TIMESTAMP"]), row["ContextTokens"], row["GeneratedTokens"])]
    if "Request tokens" in row:
        return [request_of(number_of(row["Timestamp"]), row["Request tokens"], row["Response tokens"])]
    if "num_prefill_tokens" in row:
        return [request_of(0.0, row["num_prefill_tokens"], row["num_decode_tokens"])]
    at = next((time_s(row[key]) for key in _PLAIN_TIME if key in row), 0.0)
    if "input_length" in row and "chat_id" not in row:
        at /= 1e3  # Mooncake's and aiperf's rows are in ms
    if isinstance(row.get("prompt"), str):
        return [request_of(at, max(1, len(str(row["prompt"])) // LETTERS_PER_TOKEN), row["output_tokens"])]
    if str(row.get("path", "")).endswith("/embeddings"):
        return [
            request_of(at, row["prompt_tokens"], 1)
        ]  # a pass over the prompt, which a first token costs, too
    return [request_of(at, first_of(row, _PLAIN_PROMPT), first_of(row, _PLAIN_OUTPUT))]


def _sharegpt(row: Row) -> list[Request]:
    turns = [str(turn.get("value", "")) for turn in cast("list[Row]", row["conversations"])]
    if len(turns) < 2:
        raise ValueError("fewer than two turns")
    return [
        request_of(
            0.0, max(1, len(turns[0]) // LETTERS_PER_TOKEN), max(1, len(turns[1]) // LETTERS_PER_TOKEN)
        )
    ]
