"""`windtunnel serve --agents` as a user calls it."""

from __future__ import annotations

import json

import pytest

from windtunnel.cli.main import main

BASE = ["serve", "qwen3-8b", "--on", "mtt-s5000", "--agents"]


@pytest.mark.parametrize("times", ["×", "x", " x "])
def test_the_answer_names_teams_latency_and_cost(capsys: pytest.CaptureFixture[str], times: str) -> None:
    assert main([*BASE, f"crewai:sequential{times}2"]) == 0
    out = capsys.readouterr().out
    for word in ("2 × crewai:sequential", "Sustained", "Tasks an hour", "Cost of a task", "(assumed)", "met"):
        assert word in out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "autogen:swarm×2", "--json", "--sla", "task:p90<1ms"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "no"
    assert answer["sustained_teams"]["value"] == 0
    assert answer["calls_per_task"] == 9
    assert answer["sla"][0]["what"] == "task"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["autogen:swarm×0"], "E650"), (["autogen:swan×3"], "E664"), (["nowhere.jsonl"], "E665"),
        (["autogen:swarm", "--think-time", "-1"], "E650"), (["autogen:swarm", "--rate", "3"], "E650"),
        (["autogen:swarm", "--sla", "task<"], "E654"),
    ],
)  # fmt: skip
def test_mistakes(capsys: pytest.CaptureFixture[str], words: list[str], code: str) -> None:
    assert main([*BASE, *words]) == 2
    assert f"[{code}]" in capsys.readouterr().err
