"""`windtunnel serve --agents` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windtunnel.cli.main import main
from windtunnel.cli.serve_agents import wanted_graph
from windtunnel.errors import WindtunnelError

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


def test_a_team_of_a_recording(tmp_path: Path) -> None:
    """The first that has a name, or the one asked for; others are named."""
    file = tmp_path / "calls.jsonl"
    fields = {
        "agent": "a",
        "kind": "text",
        "calls": [],
        "prompt_tokens": 40,
        "output_tokens": 5,
        "keys": [1, 2],
    }
    rows = [
        {**fields, "task": task, "began_s": at, "ended_s": at + 1.0}
        for at, task in enumerate(["", "autogen:graph:0", "autogen:graph:0", "crewai:memory:0"])
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    graph, teams = wanted_graph(f"{file}×7")
    assert (graph.name, len(graph.calls), teams) == ("autogen:graph", 2, 7)
    assert "crewai:memory" in graph.source
    graph, teams = wanted_graph(f"{file}:crewai:memory×3")
    assert (graph.name, teams, graph.source) == ("crewai:memory", 3, "recorded in calls.jsonl")
    with pytest.raises(WindtunnelError, match="autogen:swarm") as caught:
        wanted_graph(f"{file}:autogen:swarm")
    assert caught.value.code == "E664"
    file.write_text(json.dumps(rows[0]), encoding="utf-8")
    assert len(wanted_graph(str(file))[0].calls) == 1
