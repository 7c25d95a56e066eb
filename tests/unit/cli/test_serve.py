"""`windtunnel serve`: transcripts, JSON, verdicts, and options that cannot be."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import golden
from windtunnel.cli import serve_endpoint
from windtunnel.cli.main import main
from windtunnel.errors import WindtunnelError
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

SMALL = ["serve", "qwen3-8b", "--on", "mtt-s5000", "--requests", "50"]
COMMANDS = {
    "rate": [*SMALL, "--rate", "4", "--sla", "ttft:p99<1s,tpot<5ms"],
    "wide": [
        "serve", "deepseek-v3-671b", "--on", "mtt-s5000:16", "--concurrency", "64", "--requests", "64",
        "--input-len", "2000", "--output-len", "20", "--enable-dbo",
    ],
    "apart": [
        "serve", "llama3-70b", "--on", "h100-sxm:16", "--prefill-cards", "8", "--rate", "2", "--requests", "40",
    ],
}  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("name", COMMANDS)
def test_layout_of_the_answer(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line is wider than asked for, and no number is cut."""
    monkeypatch.setenv("COLUMNS", str(width))
    status = main(COMMANDS[name])
    text = capsys.readouterr().out
    assert status == (1 if name == "rate" else 0)
    assert max(map(len, text.splitlines())) <= width
    for word in ("Time to first token", "Output tokens a card", "roofline" if width > 80 else "Busy"):
        assert word in text
    assert "…" not in text


def test_transcript_of_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    """Weights and capacity are counted, not priced: this text does not move with calibration."""
    assert main(["serve", "deepseek-v3-671b", "--on", "mtt-s5000:4", "--concurrency", "4"]) == 1
    golden.check("cli/serve-does-not-fit.txt", capsys.readouterr().err)


def test_decode_cards_that_keep_more_free_hold_prompts_back(capsys: pytest.CaptureFixture[str]) -> None:
    def ttft_s(*more: str) -> float:
        words = ["serve", "llama3-8b", "--on", "mtt-s5000:2", "--prefill-cards", "1", "--scheduler", "sglang"]
        assert main([*words, "--rate", "8", "--requests", "40", "--json", *more]) == 0
        return float(json.loads(capsys.readouterr().out)["ttft_s"]["mean"])

    assert ttft_s("--num-reserved-decode-tokens", "100000") > 2 * ttft_s()


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--rate", "4", "--json", "--sla", "e2e:p50<10s"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "windtunnel.serve/1"
    assert answer["status"] == "ok"
    assert set(answer["ttft_s"]) == {"mean", "p50", "p90", "p99"}
    assert answer["requests"] == 50
    assert answer["output_tokens"] == 50 * 128
    assert answer["sla"][0]["met"]
    rate = answer["decode_tokens_per_s_per_gpu"]
    assert rate["value"] == pytest.approx(answer["output_tokens"] / answer["duration_s"])
    per_user = answer["tokens_per_s_per_user"]
    assert per_user["low"] < per_user["value"] < per_user["high"]
    assert sum(per_user["source_shares"].values()) == pytest.approx(1.0)


def test_latencies_have_an_interval_that_holds_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--rate", "4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    fast, slow = (answer["interval_80"][end] for end in ("fast", "slow"))
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        assert fast[name]["mean"] < answer[name]["mean"] < slow[name]["mean"]
    per_user = answer["tokens_per_s_per_user"]
    assert per_user["low"] == pytest.approx(1 / slow["tpot_s"]["mean"])
    # what comes at its own pace is served at that pace
    rate = answer["decode_tokens_per_s_per_gpu"]
    assert rate["high"] / rate["low"] < 0.5 * slow["tpot_s"]["mean"] / fast["tpot_s"]["mean"]


@pytest.mark.parametrize(("rate", "overloaded"), [("4", False), ("400", True)])
def test_a_queue_that_grows_is_said(rate: str, overloaded: bool, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["serve", "qwen3-8b", "--on", "mtt-s5000", "--requests", "200", "--max-num-seqs", "16"]
    assert main([*command, "--rate", rate]) == 0
    assert ("Overloaded: " in capsys.readouterr().out) == overloaded


def test_a_missed_sla_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--rate", "4", "--json", "--sla", "ttft<0.001ms"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "no"
    assert answer["goodput_rps"] == 0


def test_traces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.jsonl"
    line = {"timestamp": 0, "input_length": 700, "output_length": 30, "hash_ids": [1, 2]}
    rows = [json.dumps({**line, "timestamp": 500 * n}) for n in range(20)]
    path.write_text("\n".join([*rows[:10], "rubbish", *rows[10:]]), encoding="utf-8")
    assert main(["serve", "qwen3-8b", "--on", "mtt-s5000", "--trace", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert "line 11 left out" in err
    assert answer["requests"] == 20
    assert answer["bad_lines"] == 1
    # every prompt after the first finds its full blocks, but for the last token's
    assert answer["cache_hit_fraction"] == pytest.approx(19 / 20 * (699 // 16 * 16) / 700)


def test_a_trace_of_lengths_comes_at_a_rate_or_from_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lengths.csv"
    rows = [f"{100 + n},{20 + n}" for n in range(30)]
    path.write_text("\n".join(["num_prefill_tokens,num_decode_tokens", *rows]), encoding="utf-8")
    command = ["serve", "qwen3-8b", "--on", "mtt-s5000", "--trace", str(path), "--json"]
    answers = {}
    for more in ("", "--rate 2 --arrivals constant", "--concurrency 1"):
        assert main([*command, *more.split()]) == 0
        answers[more] = json.loads(capsys.readouterr().out)
        assert answers[more]["output_tokens"] == sum(range(20, 50))
    at_once, steady, alone = answers.values()
    assert steady["duration_s"] == pytest.approx(30 / 2, abs=1.5)
    assert steady["offered_rps"] == pytest.approx(2.0, rel=0.05)
    assert at_once["duration_s"] < steady["duration_s"] < alone["duration_s"]


def test_more_memory_for_the_cache_with_eight_bits(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = []
    for precision in ("bf16", "fp8"):
        main([*SMALL, "--rate", "2", "--kv-precision", precision, "--json"])
        tokens.append(json.loads(capsys.readouterr().out)["cache_tokens"])
    assert tokens[1] == pytest.approx(2 * tokens[0], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--rate", "0"], "E650"), (["--rate", "nan"], "E650"), (["--rate", "1", "--concurrency", "2"], "E650"),
        (["--rate", "1", "--rates", "2"], "E650"),
        (["--input-len", "0"], "E650"), (["--requests", "0"], "E650"), (["--requests", "-3"], "E650"),
        (["--gpu-memory-utilization", "1.5"], "E650"),
        (["--acceptance", "2"], "E650"), (["--kv-offloading-size", "nan"], "E650"),
        (["--port", "0", "--max-model-len", "40961"], "E650"),
        (["--port", "0", "--html", "/no/such/folder/page.html"], "E925"), (["--max-num-batched-tokens", "16"], "E650"),
        (["--on", "mtt-s5000:8", "--prefill-cards", "8"], "E650"), (["--on", "mtt-s5000,h20"], "E650"),
        (["--sla", "ttft"], "E654"), (["--sla", "fun<2s"], "E654"), (["--sla", "ttft<-1s"], "E654"),
        (["--on", "mtt-s5000:8", "--tp", "3"], "E653"), (["--trace", "/nowhere/at.all"], "E652"),
        (["--on", "nothing"], "E101"), (["--block-size", "-1"], "E650"),
    ],
)  # fmt: skip
def test_mistakes(options: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *options]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert f"[{code}]" in err
    assert "hint: " in err
    assert "Traceback" not in err


def test_prompts_that_never_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--input-len", "5000000"]) == 1
    assert "[E651]" in capsys.readouterr().err


def test_rates_show_where_the_sla_ends(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*SMALL, "--rates", "0.5,200", "--sla", "ttft:p90<300ms"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "SLA met up to 0.5 requests/s" in text
    assert "0.5 requests/s (poisson)" not in text  # the head is of all rates
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    slow, fast = answer["runs"]
    assert slow["ttft_s"]["p99"] < fast["ttft_s"]["p99"]
    assert fast["ttft_quantiles_s"] == sorted(fast["ttft_quantiles_s"])
    assert len(fast["ttft_quantiles_s"]) == len(fast["quantiles"])
    assert max(moment["running"] for moment in fast["moments"]) > 10
    assert main([*SMALL, "--rates", "1000", "--sla", "ttft:p90<1ms"]) == 1


@pytest.mark.parametrize("width", [80, 120])
def test_sweep(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    command = [
        "serve", "deepseek-v3-671b", "--on", "mtt-s5000:4,h20:32", "--sweep", "--sweep-cards", "4,32",
        "--sweep-prompts", "4096", "--sweep-batches", "64", "--enable-dbo",
    ]  # fmt: skip
    assert main(command) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    assert "left out: DeepSeek-V3 671B does not fit on 4" in " ".join(text.split())
    assert "80 % interval" in text
    assert main([*command, "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert {(p["chip"], p["cards"], p["phase"]) for p in points} == {
        (chip, 32, phase) for chip in ("mtt-s5000", "h20") for phase in ("prefill", "decode")
    }
    assert all(p["tokens_per_s_per_gpu"]["value"] < p["roofline"] for p in points)
    assert main([*command, "--sweep-batches", "0"]) == 2
    assert main(["serve", "deepseek-v3-671b", "--on", "mtt-s5000:4", "--sweep"]) == 1


def test_screen_agents_pay_for_screenshots(capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "serve",
        "qwen3.5-397b-a17b",
        "--on",
        "mtt-s5000:8",
        "--precision",
        "fp8",
        "--gui-sessions",
        "3",
        "--json",
    ]
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["cache_hit_fraction"] > 0.5
    assert answer["requests"] > 20


def test_the_context_is_the_models_as_far_as_the_cache_holds_it() -> None:
    def asked(most: int = 0) -> argparse.Namespace:
        return argparse.Namespace(max_model_len=most, pipeline_parallel_size=1)

    cards = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions())
    assert cards.cache_tokens > 40_960
    small = replace(cards, memory=replace(cards.memory, blocks=100))
    assert serve_endpoint.longest(asked(), [cards]) == 40_960
    assert serve_endpoint.longest(asked(5000), [cards]) == 5000
    assert serve_endpoint.longest(asked(), [cards, small]) == small.cache_tokens
    with pytest.raises(WindtunnelError, match="the cache of a rank"):
        serve_endpoint.longest(asked(40_960), [small])
