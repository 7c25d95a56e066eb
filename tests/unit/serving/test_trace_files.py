"""Files as users have them: marks, compression, broken quotes, standard input, other time zones."""

from __future__ import annotations

import gzip
import io
import json
import sys
import time
from pathlib import Path

import pytest

from windtunnel.errors import WindtunnelError
from windtunnel.serving.trace_readers import read_trace

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:50.9951690,396,109\n"
)
ROW = '{"timestamp": 27000, "input_length": 600, "output_length": 52, "hash_ids": [46, 47]}\n'


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("name", "text"), [("a.csv", AZURE), ("a.jsonl", ROW * 2), ("a.txt", AZURE)])
def test_marks_and_line_ends(name: str, text: str, mark: str, ends: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes((mark + text).replace("\n", ends).encode())
    trace = read_trace(tmp_path / name)
    assert (len(trace.requests), trace.bad) == (2, ())


def test_compression_is_seen_and_not_believed(tmp_path: Path) -> None:
    (tmp_path / "packed.csv").write_bytes(gzip.compress(AZURE.encode()))
    (tmp_path / "plain.csv.gz").write_bytes(AZURE.encode())
    assert read_trace(tmp_path / "packed.csv").requests == read_trace(tmp_path / "plain.csv.gz").requests


def test_a_flipped_bit_keeps_what_came_before(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"prompt_tokens": 7 + n * 2654435761 % 99991, "output_tokens": 2}) + "\n"
        for n in range(4000)
    )
    packed = bytearray(gzip.compress(rows.encode()))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    trace = read_trace(tmp_path / "a.jsonl.gz")
    assert 500 < len(trace.requests) < 4000
    assert trace.bad


def test_an_open_quote_takes_no_other_line_with_it(tmp_path: Path) -> None:
    lines = ["timestamp,prompt_tokens,output_tokens", "0,10,1", '1,"11,1', "", "2,12,1", "3,13"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    trace = read_trace(tmp_path / "a.csv")
    assert [one.prompt_tokens for one in trace.requests] == [10, 12]
    assert [bad.line for bad in trace.bad] == [3, 6]


def test_one_bad_call_leaves_the_rest_of_its_run(tmp_path: Path) -> None:
    good = {"prompt_tokens": 10, "output_tokens": 4, "start_time": 1.0}
    calls = [
        good,
        {**good, "prompt_tokens": -1},
        5,
        {**good, "start_time": None},
        {**good, "start_time": 3.0},
    ]
    run = {"benchmarks": [{"requests": {"successful": calls}}]}
    (tmp_path / "guidellm.json").write_text(json.dumps(run, indent=1))
    trace = read_trace(tmp_path / "guidellm.json")
    assert [one.arrival_s for one in trace.requests] == [0.0, 2.0]
    assert [bad.why.split(":")[0] for bad in trace.bad] == ["request 2", "request 3", "request 4"]
    session = {
        "id": "s",
        "block_size": 64,
        "requests": [{"t": 0, "in": 9, "out": 1}, 7, {"t": 1, "in": 9, "out": "x"}],
    }
    (tmp_path / "session.jsonl").write_text(json.dumps(session))
    trace = read_trace(tmp_path / "session.jsonl")
    assert (len(trace.requests), len(trace.bad)) == (1, 2)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"conversations": [1, 2]}', '{"t": 1e400, "in_tok": 1, "out_tok": 1}']
)
def test_no_row_is_too_strange_to_be_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ROW + text + "\n" + ROW)
    trace = read_trace(tmp_path / "a.jsonl")
    assert (len(trace.requests), [bad.line for bad in trace.bad]) == (2, [2])
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(WindtunnelError) as caught:
        read_trace(tmp_path / "b.json")
    assert caught.value.code == "E652"


@pytest.mark.parametrize("data", [AZURE.encode(), ROW.encode() * 2, gzip.compress(AZURE.encode())])
def test_standard_input(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))  # type: ignore[arg-type]
    trace = read_trace(Path("-"))
    assert (trace.name, len(trace.requests)) == ("standard input", 2)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone cannot be changed here")
def test_hours_are_as_long_where_clocks_are_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-10-29 00:30:00,1,1\n2023-10-29 04:30:00,1,1\n"
    (tmp_path / "a.csv").write_text(rows)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert read_trace(tmp_path / "a.csv").seconds == 4 * 3600
    finally:
        monkeypatch.undo()
        time.tzset()
