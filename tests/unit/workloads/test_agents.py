"""Call graphs from recordings, their replay in virtual time, and how many teams are carried."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.uncertainty import width_of
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.workloads.agents import capacity
from windtunnel.workloads.agents.capacity import Question, parse_terms, sustained
from windtunnel.workloads.agents.graph import Call, CallGraph, _leading, graph_called, graphs, stored
from windtunnel.workloads.agents.recording import read
from windtunnel.workloads.agents.replay import Pace, _Replay, replay


@dataclass(frozen=True)
class Flat:
    """Steps of 0.1 s, and 1 ms for every prompt token; the host issues none of them."""

    prompt_graphs = float("inf")

    def decode_s(self, decodes: int, contexts: int) -> float:
        return 0.1

    def decode_line(self, decodes: int, contexts: int) -> tuple[float, float, int]:
        return 0.1, 0.0, 1 << 20

    def mixed_s(self, decodes: int, contexts: int, chunks: Any) -> float:
        return 0.1 + 0.001 * sum(new for new, _ in chunks)

    def whole_s(self, decodes: int, contexts: int, chunks: Any) -> float:
        return self.mixed_s(decodes, contexts, chunks)

    def images_s(self, request: Any, first: int, end: int) -> float:
        return 0.0

    def experts_s(self, tokens: float) -> float:
        return 0.0


@pytest.fixture(scope="module")
def real() -> Deployment:
    return deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions())


@pytest.fixture(scope="module")
def flat(real: Deployment) -> Deployment:
    return replace(real, step=Flat())  # type: ignore[arg-type]


def call(after: tuple[int, ...] = (), gap_s: float = 0.0, **more: Any) -> Call:
    fields: dict[str, Any] = {
        "agent": "a", "kind": "text", "tool": False, "prompt_tokens": 100, "output_tokens": 11,
        "blocks": (), "common": 0,
    }  # fmt: skip
    return Call(after=after, gap_s=gap_s, **{**fields, **more})


def graph(*calls: Call) -> CallGraph:
    return CallGraph("test", "made up", 16, calls)


def unhurried_s(deployment: Deployment, team: CallGraph, pace: Pace) -> float:
    """Seconds of a task when its team is alone."""
    (task,) = replay(deployment, team, 1, pace).tasks
    return task.seconds


def row(
    agent: str, began: float, ended: float, keys: list[int], calls: tuple[str, ...] = (), task: int = 0
) -> str:
    return json.dumps(
        {
            "task": f"team:{task}", "agent": agent, "began_s": began, "ended_s": ended,
            "kind": "tool" if calls else "text", "calls": calls, "prompt_tokens": 16 * len(keys),
            "output_tokens": 5, "keys": keys,
        }
    )  # fmt: skip


def test_a_chain_waits_for_answers_and_gaps(flat: Deployment) -> None:
    chain = graph(call(), call((0,), 2.0), call((1,), 3.0, tool=True))
    # each call: prompt 0.1 + 0.1 s with its first token, then ten tokens of 0.1 s
    assert unhurried_s(flat, chain, Pace()) == pytest.approx(3 * 1.2 + 5.0, abs=1e-6)
    assert unhurried_s(flat, chain, Pace(tool_s=0.0)) == pytest.approx(3 * 1.2 + 2.0, abs=1e-6)


def test_calls_side_by_side_overlap_and_the_next_waits_for_all(flat: Deployment) -> None:
    fan = graph(call(), *(call((0,), output_tokens=n) for n in (11, 21, 31)), call((1, 2, 3)))
    # three prompts share a step (0.1 + 0.3 s), the longest answer decides
    assert unhurried_s(flat, fan, Pace()) == pytest.approx(1.2 + (0.4 + 3.0) + 1.2, abs=1e-6)


def test_teams_share_what_is_common_and_only_that(flat: Deployment) -> None:
    blocks = tuple(range(20))
    one = graph(call(prompt_tokens=320, blocks=blocks, common=10))
    outcome = replay(flat, one, 4, Pace(), spread_s=40.0)
    assert {served.cached_tokens for served in outcome.calls} == {160}
    alone = replay(flat, graph(call(prompt_tokens=320, blocks=blocks, common=0)), 4, Pace(), spread_s=40.0)
    assert {served.cached_tokens for served in alone.calls} == {0}
    assert one.shared_fraction == 0.5


def test_every_call_of_every_measured_task_is_answered_once(real: Deployment) -> None:
    for name in ("autogen:graph", "crewai:memory"):
        team = graph_called(name)
        outcome = replay(real, team, 5, Pace())
        assert len(outcome.tasks) == 5
        assert {len(task.served) for task in outcome.tasks} == {len(team.calls)}
        for task in outcome.tasks:
            assert task.ended_s == max(one.finished_s for one in task.served)


def test_more_teams_are_never_faster(real: Deployment) -> None:
    team = graph_called("autogen:selector")
    means = [
        sum(task.seconds for task in replay(real, team, teams, Pace(), spread_s=5.0).tasks) / teams
        for teams in (1, 8, 64)
    ]
    assert means == sorted(means)
    assert means[0] <= unhurried_s(real, team, Pace()) * 1.01


def test_replicas_share_the_teams(real: Deployment) -> None:
    two = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 2), DeploymentOptions())
    assert two.replicas == 2
    team = graph_called("autogen:round_robin")
    outcome = replay(two, team, 40, Pace(), spread_s=5.0)
    served = [len(replica.served) for replica in outcome.replicas]
    assert min(served) > 0.8 * max(served)
    again = replay(two, team, 40, Pace(), spread_s=5.0)
    assert [task.seconds for task in again.tasks] == [task.seconds for task in outcome.tasks]


def test_the_most_teams_hold_and_a_few_more_do_not(real: Deployment) -> None:
    question = Question(
        graph=graph_called("crewai:sequential"), teams=4, sla=parse_terms("tpot:p90<40ms"), pace=Pace()
    )
    found = sustained(real, question)
    most = int(found.sustained_teams.value)
    assert found.sustained_teams.low <= most <= found.sustained_teams.high

    def holds(teams: int) -> bool:
        return sustained_limits(real, replace(question, teams=teams))

    assert holds(most)
    assert not holds(round(most * 1.1) + 1)
    assert found.cost_per_task.value == pytest.approx(2.0 / found.tasks_per_hour.value)


def test_a_search_ends_where_not_even_one_team_holds(flat: Deployment) -> None:
    team = graph(call())
    question = Question(graph=team, teams=1, sla=parse_terms("tpot:p90<105ms"), pace=Pace())
    assert capacity._most(flat, question, 1.0, lambda text: None) > 0
    slow = capacity._at(flat, 1.2)
    assert capacity._most(slow, question, 1.0, lambda text: None, start=3) == 0


def sustained_limits(deployment: Deployment, question: Question) -> bool:
    alone_s = unhurried_s(deployment, question.graph, question.pace)
    outcome = capacity._run(deployment, question, question.teams, alone_s)
    return capacity._load(question, question.teams, capacity._spreads(outcome)).met


def test_tokens_and_cost_of_a_task_by_hand(
    real: Deployment, flat: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "width_of", lambda _, batch: width_of(real, batch))
    blocks = tuple(range(20))
    first = call(prompt_tokens=320, blocks=blocks, common=10)
    team = graph(first, call((0,), 0.6, prompt_tokens=320, blocks=blocks, common=10))
    found = sustained(flat, Question(graph=team, teams=1, sla=parse_terms("tpot<105ms"), pace=Pace()))
    # common blocks are cached by then: 0.1 s + 160 of 320 tokens, the second call but for its last block, 20 more steps
    task_s = (0.1 + 0.16 + 1.0) + 0.6 + (0.1 + 0.016 + 1.0)
    assert found.task_s.mean == pytest.approx(task_s, abs=1e-6)
    assert (found.calls_per_task, found.prompt_tokens_per_task, found.output_tokens_per_task) == (2, 640, 22)
    assert found.cached_fraction == pytest.approx((160 + 304) / 640)
    assert found.tasks_per_hour.value == pytest.approx(3600 / task_s)
    assert found.cost_per_task.value == pytest.approx(capacity.DEFAULT_CARD_HOUR * task_s / 3600)


@pytest.mark.parametrize("stack", [Stack.VLLM, Stack.SGLANG])
def test_drafts_of_teams_come_in_bursts_and_are_said(real: Deployment, stack: Stack) -> None:
    options = DeploymentOptions(speculation=Speculation(tokens=1, acceptance=0.5), stack=stack)
    drafting = deploy(real.model, real.cluster, options)
    team = graph(call(output_tokens=41))
    (task,) = replay(drafting, team, 1, Pace()).tasks
    steps = sum(replica.decode_steps for replica in replay(drafting, team, 1, Pace()).replicas)
    assert drafting.bursts
    assert len(task.served) == 1
    assert 41 < steps < 80  # two tasks of 41 tokens, a half of the drafts accepted
    question = Question(graph=team, teams=1, sla=parse_terms("tpot<1ms"), pace=Pace())
    assert any("drawn step by step" in said for said in sustained(drafting, question).assumptions)


@pytest.mark.parametrize("drafts", [0, 1])
@pytest.mark.parametrize("stack", [Stack.VLLM, Stack.SGLANG])
@pytest.mark.parametrize("name", ["autogen:swarm", "autogen:graph"])
def test_prompts_of_teams_in_stretches_run_as_key_by_key(
    real: Deployment, monkeypatch: pytest.MonkeyPatch, name: str, stack: Stack, drafts: int
) -> None:
    options = DeploymentOptions(speculation=Speculation(tokens=drafts, acceptance=0.8), stack=stack)
    deployment, team = deploy(real.model, real.cluster, options), graph_called(name)
    stretched = replay(deployment, team, 6, Pace(), spread_s=5.0)
    monkeypatch.setattr(_Replay, "_stretches", lambda self: [[] for _ in team.calls])
    by_key = replay(deployment, team, 6, Pace(), spread_s=5.0)
    assert any(one.cached_tokens for one in by_key.calls)
    assert [one[1:] for one in stretched.calls] == [one[1:] for one in by_key.calls]


def test_terms_for_tasks() -> None:
    first, second = parse_terms("task:p99<90s,ttft<2s")
    assert (first.what, first.percentile, first.most_s) == ("task", "p99", 90.0)
    assert second.what == "ttft"
    with pytest.raises(WindtunnelError):
        parse_terms("task:p98<90s")


def test_what_waited_for_what(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    rows = [
        row("plan", 0.0, 1.0, [1, 2, 3]),
        row("look1", 1.1, 2.0, [1, 4], ("search",)),
        row("look2", 1.1, 3.0, [1, 5], ("search",)),
        row("look1", 4.0, 5.0, [1, 4, 6]),  # waits for its own tool only, not for look2
        row("look2", 4.5, 6.0, [1, 5, 7]),
        row("write", 6.1, 7.0, [1, 2, 8]),
        row("plan", 0.0, 1.0, [1, 2, 9], task=1),
        "{broken",
    ]
    file.write_text("\n".join(rows), encoding="utf-8")
    (made,) = read(file, "here")
    assert [one.after for one in made.calls] == [(), (0,), (0,), (1,), (2,), (3, 4)]
    assert [one.gap_s for one in made.calls] == [0.0, 0.1, 0.1, 2.0, 1.5, 0.1]
    assert [one.tool for one in made.calls] == [False, False, False, True, True, False]
    assert [one.common for one in made.calls] == [2, 1, 1, 1, 1, 2]
    assert stored(made).graph() == made


def test_a_manager_waits_for_the_work_it_gave_out(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    rows = [
        row("manager", 0.0, 1.0, [1], ("delegate_work_to_coworker",)),
        row("worker", 1.1, 2.0, [2]),
        row("manager", 2.1, 3.0, [1, 3]),
    ]
    file.write_text("\n".join(rows), encoding="utf-8")
    (made,) = read(file, "here")
    assert [one.after for one in made.calls] == [(), (0,), (1,)]


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    file = tmp_path / "none.jsonl"
    file.write_text("{}\n", encoding="utf-8")
    for path in (file, tmp_path / "absent.jsonl"):
        with pytest.raises(WindtunnelError) as caught:
            read(path, "here")
        assert caught.value.code == "E665"
    with pytest.raises(WindtunnelError) as caught:
        graph_called("autogen:swam")
    assert caught.value.code == "E664"
    assert "autogen:swarm" in str(caught.value.hint)


def test_shipped_graphs_are_whole() -> None:
    assert len(graphs()) == 10
    for name, team in graphs().items():
        assert team.name == name
        assert "recorded" in team.source
        for place, one in enumerate(team.calls):
            assert all(before < place for before in one.after)
            assert one.common <= len(one.blocks) <= -(-one.prompt_tokens // team.block_tokens)
            assert one.after or place == 0 or name == "crewai:async"
    widths = {name: max(len(one.after) for one in team.calls) for name, team in graphs().items()}
    assert widths["autogen:graph"] == widths["crewai:async"] == 3


@pytest.mark.parametrize("name", sorted(graphs()))
def test_one_team_alone_finds_whole_blocks_of_what_it_shares(name: str) -> None:
    """Qwen3.5's blocks have 528 tokens. States are kept at a prompt's last one: some find one less."""
    cards = deploy(
        shipped_model("qwen3.5-397b-a17b"),
        cluster_of("mtt-s5000", 8),
        DeploymentOptions(precision=Precision.FP8),
    )
    size, graph = cards.memory.block_tokens, graph_called(name)
    assert size == 528
    shared = []
    for place, one in enumerate(graph.calls):
        most = max([one.common, *(_leading(one.blocks, other.blocks) for other in graph.calls[:place])])
        shared.append(min(most * graph.block_tokens, one.prompt_tokens - 1) // size * size)
    (task,) = replay(cards, graph, 1, Pace()).tasks
    found = [one.cached_tokens for one in sorted(task.served, key=lambda one: one.request.number)]
    assert all(less <= most for less, most in zip(found, shared, strict=True))
    assert found == shared or name == "autogen:magentic"
    if name == "autogen:swarm":
        assert sum(found) == size
