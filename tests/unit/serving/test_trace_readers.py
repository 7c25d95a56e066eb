"""Traces of every format; broken lines named and kept apart."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from windtunnel.errors import WindtunnelError
from windtunnel.serving.trace_readers import read_trace


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


MOONCAKE = '{"timestamp": 27000, "input_length": 600, "output_length": 52, "hash_ids": [46, 47]}\n'
FORMATS = {
    "mooncake.jsonl": (MOONCAKE, 600, 52),
    "bailian.jsonl": (
        '{"chat_id": 1, "timestamp": 3.5, "input_length": 20, "output_length": 7, "hash_ids": [1, 2]}', 20, 7,
    ),
    "azure.csv": ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n", 4808, 10),
    "burst.csv": (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API\n",
        472, 18,
    ),
    "vidur.csv": ("num_prefill_tokens,num_decode_tokens,num_total_tokens\n3772,54,3826\n", 3772, 54),
    "sessions.jsonl.gz": (
        json.dumps({"id": "s", "block_size": 64, "requests": [{"t": 2, "in": 70, "out": 9, "hash_ids": [1, 2]}]}),
        70, 9,
    ),
    "sharegpt.json": (
        json.dumps([{"conversations": [{"value": "x" * 400}, {"value": "y" * 80}]}]), 100, 20,
    ),
    "plain.jsonl": ('{"prompt_tokens": 5, "output_tokens": 6, "timestamp": 1.5}', 5, 6),
    "aiperf.jsonl": ('{"timestamp": 4000, "input_length": 33, "output_length": 8}', 33, 8),
    "custom.jsonl": (json.dumps({"prompt": "x" * 40, "output_tokens": 12}), 10, 12),
    "guidellm.csv": ("prompt_tokens_count,output_tokens_count\n128,32\n", 128, 32),
    "agents.jsonl": (
        '{"t": 7.5, "prompt_tokens": 100, "completion_tokens": 3, "hash_ids": [0, 1], "block": 64}', 100, 3,
    ),
    "vllm.json": (
        json.dumps({"input_lens": [0, 7], "output_lens": [0, 5], "start_times": [3.0, 4.0], "date": "x"}, indent=1),
        7, 5,
    ),
    "report.json": (
        json.dumps(
            {"benchmarks": [{"requests": {"successful": [
                {"prompt_tokens": 256, "output_tokens": 128, "start_time": 1.7e9}
            ]}}]}
        ), 256, 128,
    ),
    "profile_export.jsonl": (
        json.dumps(
            {
                "metadata": {"request_start_ns": 1_700_000_000_000_000_000},
                "metrics": {"input_sequence_length": {"value": 550}, "output_sequence_length": {"value": 21}},
            }
        ), 550, 21,
    ),
    "calls.csv.gz": ("trace,t,in_tok,out_tok\n1,19.0,72762,296\n", 72762, 296),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str, tmp_path: Path) -> None:
    text, prompt, output = FORMATS[name]
    trace = read_trace(write(tmp_path, name, text))
    (request,) = trace.requests
    assert (request.prompt_tokens, request.output_tokens, request.arrival_s) == (prompt, output, 0.0)
    assert not trace.bad


def client(**changes: object) -> str:
    lengths = {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{7: 1.0}"}
    windows = "0,2.0,1.0,Gamma,1.0,0.5\r\n600,0.0,0.0,,,\r\n1200,4.0,2.0,Weibull,0.5,0.125\r\n1800,1,1,,,"
    row = {"client": "5", "trace_csv": windows, "dataset": {"0": {}, "600": lengths}, **changes}
    return json.dumps(row) + "\n"


def test_servegen_clients_are_drawn(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "clients.jsonl", client() + client(dataset={}) + client(client="6")))
    assert [bad.line for bad in trace.bad] == [2]
    ours = [request for request in trace.requests if request.session == "client 5"]
    times = [request.arrival_s + 0.0 for request in ours]
    early = [time for time in times if time < 601]
    assert len(early) == pytest.approx(1200, rel=0.15)  # 2 a second for 600 s
    assert not [time for time in times if 605 < time < 1190]
    assert len(times) - len(early) == pytest.approx(2400, rel=0.2)
    assert {request.prompt_tokens for request in ours} == {100, 200}
    assert sum(r.prompt_tokens == 200 for r in ours) / len(ours) == pytest.approx(0.75, abs=0.05)
    again = read_trace(write(tmp_path, "again.jsonl", client()))
    assert [r.output_tokens for r in again.requests] == [7] * len(again.requests)
    assert len(again.requests) == len(ours)


def test_what_was_read_before_a_file_breaks_off_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    draw = random.Random(1)
    rows = [
        json.dumps({"prompt_tokens": draw.randrange(1, 1 << 40), "output_tokens": 2}) for _ in range(4000)
    ]
    whole = gzip.compress("\n".join(rows).encode())
    file.write_bytes(whole[: len(whole) // 2])
    trace = read_trace(file)
    assert 1000 < len(trace.requests) < 3000
    assert trace.bad[-1].line == len(trace.requests) + 1
    plain = tmp_path / "rows.jsonl"
    plain.write_bytes("\n".join(rows[:2]).encode() + b"\n\xff\xfe\n" + rows[2].encode())
    trace = read_trace(plain)
    assert (len(trace.requests), [bad.line for bad in trace.bad]) == (3, [3])


def test_a_table_of_sessions_shares_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "calls.csv"
    rows = ["trace,agent,seq,t,in_tok,out_tok,blocks,shared_prev_blocks"]
    rows += ["1,0,0,0,640,5,10,0", "1,0,1,9,960,5,15,10", "1,1,0,10,640,5,10,0", "1,0,2,20,640,5,10,4"]
    file.write_text("\n".join(rows), encoding="utf-8")
    first, second, other, third = read_trace(file).requests
    assert [len(one.keys) for one in (first, second, other, third)] == [10, 15, 10, 10]
    assert second.keys[:10] == first.keys
    assert third.keys[:4] == first.keys[:4]
    assert len({*first.keys, *second.keys, *other.keys, *third.keys}) == 10 + 5 + 10 + 6
    assert {one.session for one in (first, second, other, third)} == {"1"}


def test_broken_lines_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    lines = [
        MOONCAKE,
        "not json\n",
        '{"timestamp": 28000, "input_length": -3, "output_length": 1, "hash_ids": []}\n',
        '{"timestamp": 28000, "input_length": 5000, "output_length": 1, "hash_ids": [1]}\n',
        "[1, 2]\n",
        '{"timestamp": 29500, "input_length": 10, "output_length": "many", "hash_ids": [1]}\n',
        '{"timestamp": NaN, "input_length": 10, "output_length": 3, "hash_ids": [1]}\n',
        "\n",
        '{"timestamp": 29000, "input_length": 10, "output_length": 0, "hash_ids": [3]}\n',
    ]
    trace = read_trace(write(tmp_path, "broken.jsonl", "".join(lines)))
    assert [bad.line for bad in trace.bad] == [2, 3, 4, 5, 6, 7]
    assert [request.number for request in trace.requests] == [0, 1]
    assert trace.requests[1].arrival_s == pytest.approx(2.0)
    assert trace.requests[1].output_tokens == 1
    assert trace.seconds == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("empty.jsonl", ""),
        ("rubbish.jsonl", "hello\n"),
        ("cut.json", "[{"),
        ("cut.jsonl.gz", None),
        ("absent", None),
    ],
)
def test_nothing_to_replay(name: str, text: str | None, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        write(tmp_path, name, text)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(MOONCAKE.encode() * 500)[:40])
    with pytest.raises(WindtunnelError) as caught:
        read_trace(path)
    assert caught.value.code == "E652"


def test_keys_fit_any_block_that_divides(tmp_path: Path) -> None:
    (request,) = read_trace(write(tmp_path, "m.jsonl", MOONCAKE)).requests
    assert request.runs(64) == ((46, 8), (47, 1))
    assert request.runs(512) == ((46, 1),)
    assert [blocks for _, blocks in request.runs(1024)] == []
    assert len({key for key, _ in request.runs(96)}) == 600 // 96


def test_published_traces(shared: Path) -> None:
    folder = shared / "traces"
    trace = read_trace(folder / "mooncake_fast25_conversation.jsonl")
    assert len(trace.requests) == 12_031
    assert sum(request.prompt_tokens for request in trace.requests) == 144_793_823
    assert not trace.bad
    assert len(read_trace(folder / "azure_llm_2023_code.csv", 100).requests) == 100
    counts = {
        "mooncake_fast25_synthetic.jsonl": 3_993,
        "azure_llm_2023_conv.csv": 19_366,
        "vidur_arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv": 28_257,
        "agentic_claude_code_raw24.jsonl.gz": 797,
        "agent_calls_autogen.jsonl": None,
        "agent_calls_crewai.jsonl": None,
        "agent_calls_agentframework.jsonl": None,
    }
    for name, count in counts.items():
        found = read_trace(folder / name)
        assert not found.bad or name.startswith("agent_calls")  # embeddings: nothing comes out
        assert len(found.bad) < len(found.requests) / 2
        assert len(found.requests) == (count or len(found.requests)) > 10


def test_a_run_of_a_load_generator_keeps_its_gaps(tmp_path: Path) -> None:
    text = json.dumps({"input_lens": [9, 7, 8], "output_lens": [1, 5, 2], "start_times": [3.0, 4.5, 6.0]})
    trace = read_trace(write(tmp_path, "run.json", text))
    assert [(r.arrival_s, r.prompt_tokens) for r in trace.requests] == [(0.0, 9), (1.5, 7), (3.0, 8)]
    cut = json.dumps({"input_lens": [9, 7], "output_lens": [1]})
    with pytest.raises(WindtunnelError, match="no request"):
        read_trace(write(tmp_path, "cut.json", cut))
