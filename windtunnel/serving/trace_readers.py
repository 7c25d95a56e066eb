"""Traffic from published traces. A line that cannot be read is named and left out; the rest is kept.

Formats, known by their columns: Mooncake (timestamp in ms, input_length, output_length, hash_ids of 512 tokens),
Qwen-Bailian (the same with chat_id and 16 tokens), Azure 2023 and 2024 (TIMESTAMP, ContextTokens,
GeneratedTokens), BurstGPT (Timestamp, Request tokens, Response tokens), Vidur length pairs (num_prefill_tokens,
num_decode_tokens, no times), ServeGen clients (trace_csv, dataset: drawn), coding-agent sessions (id, block_size,
requests; or a row a call with the blocks of 64 tokens that it shares with the call before it), ShareGPT (conversations;
token counts are letters ÷ 4, an estimate), what load generators wrote (``benchmark_traces``) or read (aiperf's rows
without hash_ids; vLLM's ``prompt`` and ``output_tokens``; guidellm's ``prompt_tokens_count``), logs of agent calls (t,
prompt_tokens, hash_ids, block), and plain rows with prompt and output tokens.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import cast

from windtunnel.errors import WindtunnelError
from windtunnel.serving.benchmark_traces import calls
from windtunnel.serving.request import Request
from windtunnel.serving.servegen import client_requests

BAD_SHOWN = 5
SESSION_BLOCK = 64
"""Tokens of the blocks that tables of coding-agent sessions count."""
LETTERS_PER_TOKEN = 4
"""For texts without token counts: English text in common vocabularies has about four letters a token."""
_PLAIN_PROMPT = (
    "prompt_tokens", "input_tokens", "input_length", "prompt_len", "in_tok", "prompt_tokens_count",
)  # fmt: skip
_PLAIN_OUTPUT = (
    "output_tokens", "output_length", "completion_tokens", "output_len", "out_tok", "output_tokens_count",
)  # fmt: skip
_PLAIN_TIME = ("timestamp", "arrival_s", "arrival_time", "time", "t")

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was left out, and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of arrival, starting at 0 s, and the lines that could not be read."""

    name: str
    requests: tuple[Request, ...]
    bad: tuple[BadLine, ...]

    @property
    def seconds(self) -> float:
        """From the first arrival to the last."""
        return self.requests[-1].arrival_s if self.requests else 0.0


def read_trace(path: Path, limit: int = 0) -> Trace:
    """Read a trace; ``limit``: at most so many requests.

    Raises:
        WindtunnelError: E652, the file cannot be read or holds no request.
    """
    found: list[Request] = []
    bad: list[BadLine] = []
    last: dict[str, tuple[int, ...]] = {}
    line = 0
    try:
        for line, row in _rows(path, bad):
            try:
                read = [_next_call(row, last)] if "shared_prev_blocks" in row else _requests(row)
            except (KeyError, ValueError, TypeError, IndexError) as error:
                bad.append(BadLine(line, _reason(error)))
                continue
            found += read
            # rows of many requests overlap in time: all are read, then cut
            if limit and len(found) >= limit and len(read) == 1:
                break
    except (OSError, EOFError) as error:
        if not found:
            raise _unreadable(path, str(error), bad) from None
        bad.append(BadLine(line + 1, f"the file cannot be read from here: {error}"))
    if not found:
        raise _unreadable(path, "no request in it", bad)
    found.sort(key=lambda request: request.arrival_s)
    start = found[0].arrival_s
    kept = found[:limit] if limit else found
    numbered = [replace(r, number=n, arrival_s=r.arrival_s - start) for n, r in enumerate(kept)]
    return Trace(path.name, tuple(numbered), tuple(bad))


def _unreadable(path: Path, why: str, bad: list[BadLine]) -> WindtunnelError:
    values: dict[str, object] = {"file": path}
    values |= {f"line {entry.line}": entry.why for entry in bad[:BAD_SHOWN]}
    return WindtunnelError(
        "E652",
        f"cannot read the trace {path.name}: {why}",
        hint="JSON lines or CSV with arrival, prompt and output tokens: see docs/serving.md",
        values=values,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return str(error) or type(error).__name__


def _rows(path: Path, bad: list[BadLine]) -> Iterator[tuple[int, Row]]:
    opener = gzip.open if path.suffix == ".gz" else open
    name = path.name.removesuffix(".gz")
    with opener(path, "rt", encoding="utf-8", errors="replace", newline="") as file:
        if name.endswith(".csv"):
            for line, row in enumerate(csv.DictReader(file), 2):
                yield line, row
            return
        first = file.read(1)
        file.seek(0)
        if first == "[" or (first == "{" and name.endswith(".json")):
            try:
                entries = json.load(file)
            except ValueError as error:
                bad.append(BadLine(1, str(error)))
                return
            yield from enumerate(entries if isinstance(entries, list) else [entries], 1)
            return
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                bad.append(BadLine(line, f"no JSON: {error}"))
                continue
            if isinstance(row, dict):
                yield line, row
            else:
                bad.append(BadLine(line, "not an object"))


def _requests(row: Row) -> list[Request]:
    run = calls(row)
    if run is not None:
        return [_request(*call) for call in run]
    if "trace_csv" in row:
        return client_requests(row)
    if "requests" in row:
        return _session(row)
    if "conversations" in row:
        return _sharegpt(row)
    if "ContextTokens" in row:
        return [_request(_date_s(row["TIMESTAMP"]), row["ContextTokens"], row["GeneratedTokens"])]
    if "Request tokens" in row:
        return [_request(_number(row["Timestamp"]), row["Request tokens"], row["Response tokens"])]
    if "num_prefill_tokens" in row:
        return [_request(0.0, row["num_prefill_tokens"], row["num_decode_tokens"])]
    if "hash_ids" in row:
        return [_hashed(row)]
    at = next((_time_s(row[key]) for key in _PLAIN_TIME if key in row), 0.0)
    if "input_length" in row and "chat_id" not in row:
        at /= 1e3  # Mooncake's and aiperf's rows are in ms
    if isinstance(row.get("prompt"), str):
        return [_request(at, max(1, len(str(row["prompt"])) // LETTERS_PER_TOKEN), row["output_tokens"])]
    return [_request(at, _first(row, _PLAIN_PROMPT), _first(row, _PLAIN_OUTPUT))]


def _hashed(row: Row) -> Request:
    keys = tuple(int(key) for key in cast("list[int]", row["hash_ids"]))
    if "block" in row:  # a log of agent calls
        request = _request(_number(row["t"]), row["prompt_tokens"], row["completion_tokens"])
        return _with_keys(request, keys, int(_number(row["block"])))
    bailian = "chat_id" in row
    at = _number(row["timestamp"])
    request = _request(at if bailian else at / 1e3, row["input_length"], row["output_length"])
    return _with_keys(request, keys, 16 if bailian else 512)


def _session(row: Row) -> list[Request]:
    name, tokens = str(row["id"]), int(_number(row["block_size"]))
    # keys are known within the session only: spread sessions apart
    start = (abs(hash_of(name)) % (1 << 30)) << 24
    answers = []
    for call in cast("list[Row]", row["requests"]):
        keys = tuple(start + int(key) for key in cast("list[int]", call.get("hash_ids", [])))
        request = replace(_request(_number(call["t"]), call["in"], call["out"]), session=name)
        answers.append(_with_keys(request, keys, tokens) if keys else request)
    return answers


def _next_call(row: Row, last: dict[str, tuple[int, ...]]) -> Request:
    """A session's next call; ``last``: keys of the call before it, by session and agent."""
    name = f"{row['trace']}:{row.get('agent', '')}"
    request = replace(_request(_number(row["t"]), row["in_tok"], row["out_tok"]), session=name)
    blocks, before = int(_number(row["blocks"])), last.get(name, ())
    shared = before[: min(int(_number(row["shared_prev_blocks"])), blocks)]
    first = (hash_of(f"{name} {row.get('seq', len(before))}") % (1 << 34)) << 20
    keys = last[name] = (*shared, *range(first, first + blocks - len(shared)))
    return _with_keys(request, keys, SESSION_BLOCK) if keys else request


def _sharegpt(row: Row) -> list[Request]:
    turns = [str(turn.get("value", "")) for turn in cast("list[Row]", row["conversations"])]
    if len(turns) < 2:
        raise ValueError("fewer than two turns")
    return [
        _request(0.0, max(1, len(turns[0]) // LETTERS_PER_TOKEN), max(1, len(turns[1]) // LETTERS_PER_TOKEN))
    ]


def _with_keys(request: Request, keys: tuple[int, ...], tokens: int) -> Request:
    if len(keys) * tokens < request.prompt_tokens - tokens:
        raise ValueError(f"{len(keys)} hash ids for {request.prompt_tokens} tokens of prompt")
    return replace(request, keys=keys, key_tokens=tokens)


def _request(at_s: float, prompt: object, output: object) -> Request:
    tokens = int(_number(prompt))
    if tokens < 1:
        raise ValueError(f"{tokens} prompt tokens")
    out = int(_number(output))
    if out < 0:
        raise ValueError(f"{out} output tokens")
    if at_s < 0:
        raise ValueError(f"arrives at {at_s} s")
    return Request(0, at_s, tokens, max(1, out))


def _first(row: Row, names: tuple[str, ...]) -> object:
    for name in names:
        if name in row:
            return row[name]
    raise KeyError(names[0])


def _number(value: object) -> float:
    number = float(cast("str", value))
    if number != number or abs(number) > 1e15:
        raise ValueError(f"not a number: {value}")
    return number


def _time_s(value: object) -> float:
    try:
        return _number(value)
    except ValueError:
        return _date_s(value)


def _date_s(value: object) -> float:
    text = str(value).strip()
    whole, dot, fraction = text.partition(".")
    seconds = datetime.fromisoformat(whole).timestamp()
    digits = fraction.split("+")[0].rstrip("Z")
    return seconds + (float(f"0.{digits}") if dot and digits else 0.0)


def hash_of(text: str) -> int:
    """A number of a text that is the same in every process."""
    value = 0
    for letter in text.encode():
        value = (value * 1099511628211 + letter + 1) % (1 << 61)
    return value
