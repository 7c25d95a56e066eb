"""Options that would be ignored are refused, and what does not fit says what would."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.cli.main import main
from windtunnel.endpoint.vllm import launch
from windtunnel.endpoint.vllm.launch import Place
from windtunnel.endpoint.vllm.settings import Settings

QWEN, DEEPSEEK = (
    ["serve", "qwen3-8b", "--on", "mtt-s5000"],
    ["serve", "deepseek-v3-671b", "--on", "mtt-s5000:32"],
)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ([*QWEN, "--sweep", "--rate", "2"], "--sweep and --rate"),
        ([*QWEN, "--sweep", "--sla", "ttft<1s"], "--sweep and --sla"),
        ([*DEEPSEEK, "--sweep", "--prefill-cards", "16"], "--sweep and --prefill-cards"),
        ([*QWEN, "--port", "0", "--trace", "x.jsonl"], "--port and --trace"),
        ([*QWEN, "--port", "0", "--rates", "1,2"], "--port and --rates"),
        ([*QWEN, "--rate", "1", "--max-model-len", "4096"], "without --port"),
        ([*QWEN, "--trace", "x.jsonl", "--gui-sessions", "4"], "--trace and --gui-sessions"),
        ([*QWEN, "--gui-sessions", "4", "--concurrency", "4"], "--gui-sessions and --concurrency"),
        ([*QWEN, "--trace", "one.jsonl", "--trace", "two.jsonl"], "one.jsonl and --trace two.jsonl"),
        ([*QWEN, "--gui-sessions", "4"], "reads no images"),
        ([*QWEN, "--rate", "1", "--enable-mixed-chunk"], "without --scheduler sglang"),
        ([*QWEN, "--rate", "1", "--schedule-policy", "lpm"], "without --scheduler sglang"),
        (
            [*QWEN, "--rate", "1", "--scheduler", "sglang", "--num-reserved-decode-tokens", "8"],
            "without --prefill-cards",
        ),
        ([*QWEN, "--rate", "1", "--hicache-ratio", "3"], "without --enable-hierarchical-cache"),
        ([*QWEN, "--rate", "1", "--ep"], "has no experts"),
        ([*QWEN, "--rate", "1", "--expert-load", "power-law:1"], "part of every expert"),
        ([*QWEN, "--rate", "1", "--enable-dbo"], "there are none"),
        ([*DEEPSEEK, "--tp", "32", "--rate", "1", "--num-redundant-experts", "32"], "part of every expert"),
    ],
)
def test_what_says_nothing_is_refused(
    command: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    said = capsys.readouterr().err
    assert word in said
    assert "E650" in said


@pytest.mark.parametrize(
    "load",
    [["--rate", "1"], ["--rates", "1,2"], ["--sweep"], ["--agents", "autogen:swarm×2"], ["--port", "0"]],
)
def test_a_page_that_cannot_be_written_is_found_before_the_run(
    load: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it began")

    monkeypatch.setattr("windtunnel.cli.serve.find_model", never)
    for page in (tmp_path / "absent" / "page.html", tmp_path):
        assert main([*QWEN, *load, "--html", str(page)]) == 2
        said = capsys.readouterr().err
        assert "E925" in said
        assert str(page) in said


def test_looking_whether_a_page_can_be_written_leaves_what_is_there(tmp_path: Path) -> None:
    old = tmp_path / "old.html"
    old.write_text("yesterday's", encoding="utf-8")
    for page in (old, tmp_path / "new.html"):
        assert main(["serve", "no-such-model", "--rate", "1", "--html", str(page)]) == 2
    assert old.read_text(encoding="utf-8") == "yesterday's"
    assert not (tmp_path / "new.html").exists()


@pytest.mark.parametrize(
    ("cards", "prompts", "hint"),
    [(64, 7, "--prefill-cards 16 --on mtt-s5000:73"), (64, 60, "--prefill-cards 60 --on mtt-s5000:76")],
)
def test_the_part_that_is_too_small_is_named(
    cards: int, prompts: int, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load = ["--rate", "1", "--prefill-cards", str(prompts)]
    assert main(["serve", "deepseek-v3-671b", "--on", f"mtt-s5000:{cards}", *load]) == 1
    assert f"hint: {hint}\n" in capsys.readouterr().err


def test_a_sequence_that_no_number_of_cards_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DEEPSEEK, "--rate", "1", "--input-len", "1000000"]) == 1
    assert "--kv-precision fp8" in capsys.readouterr().err


def test_what_the_real_vllm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[Settings, Place]] = []

    def serve(_: object, told: Settings, place: Place, stages: int) -> int:
        got.append((told, place))
        return stages - 1

    monkeypatch.setattr(launch, "serve", serve)
    words = ["serve", "qwen3-8b", "--on", "mtt-s5000", "--engine", "vllm", "--port", "0"]
    assert main([*words, "--max-num-seqs", "8", "--max-queue", "5", "--served-model-name", "*"]) == 0
    assert main([*words, "--vllm-args", """--override-generation-config '{"top_k": 5}'"""]) == 0
    (first, bounded), (second, plain) = got
    assert bounded.more == ("--max-num-queued-reqs", "13")
    assert (bounded.names, first.any_name, second.any_name) == (("qwen3-8b",), True, False)
    assert plain.more == ("--override-generation-config", '{"top_k": 5}')
