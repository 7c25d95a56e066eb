"""The native scheduler against recorded decisions of vLLM: every batch, every request's times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cases import Case, ahead_cases, cases, condensed
from windtunnel.serving.hybrid import scheduler_for
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.step_plan import StepPlan

GOLDEN = Path(__file__).parents[2] / "golden" / "serving"


def recorded(name: str) -> dict[str, Any]:
    """Runs by their names."""
    text = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    return {run["name"]: run for run in json.loads(text)["runs"]}


RUNS, AHEAD = recorded("vllm_scheduler"), recorded("vllm_run_ahead")


def engine_of(case: Case) -> Scheduler:
    """The scheduler of a case; latent attention needs nothing but its block size."""
    options = {name: value for name, value in case["options"].items() if name != "latent"}
    engine = scheduler_for(SchedulerOptions(**options))
    engine.lists_decoded = True
    return engine


Decided = tuple[StepPlan, dict[int, int]]


def decide(engine: Scheduler, now: float) -> Decided:
    """The next step, and its tokens by request."""
    plan = engine.schedule(now)
    tokens = {s.request.number: 1 for s in plan.decoded}
    tokens |= {chunk.sequence.request.number: chunk.new for chunk in plan.chunks}
    assert len(tokens) == plan.decodes + len(plan.chunks)
    moved = [engine.clock - s.joined_at if s.joined_at >= 0 else 0 for s in plan.decoded]
    assert plan.contexts == sum(s.computed + more - 1 for s, more in zip(plan.decoded, moved, strict=True))
    return plan, tokens


def replay(case: Case) -> dict[str, Any]:
    """The native scheduler, stepped as the recorded one was."""
    rows = [
        Request(number, row[0], row[1], row[2], tuple(row[3]), case["key_tokens"])
        for number, row in enumerate(case["requests"])
    ]
    engine = engine_of(case)
    now, place, steps, times = 0.0, 0, [], [[0.0, 0.0] for _ in rows]
    ahead: Decided | None = None
    while place < len(rows) or engine.busy:
        while place < len(rows) and rows[place].arrival_s <= now:
            engine.add(rows[place])
            place += 1
        if not engine.busy:
            now = max(now, rows[place].arrival_s)
            continue
        plan, tokens = ahead or decide(engine, now)
        if engine.options.async_scheduling:
            following = decide(engine, now)
            ahead = None if following[0].empty else following
        assert tokens
        steps.append(sorted(tokens.items()))
        now += case["fixed_s"] + case["token_s"] * sum(tokens.values())
        for sequence in engine.complete(plan, now):
            times[sequence.request.number] = [sequence.first_s, now]
    assert engine.pool.free == engine.pool.capacity
    return condensed(case["name"], steps, times)


def check(case: Case, golden: dict[str, Any]) -> None:
    ours = replay(case)
    for index, step in golden["samples"].items():
        assert ours["samples"].get(index) == step, f"step {index}"
    assert ours["steps"] == golden["steps"]
    assert ours["sha256"] == golden["sha256"]
    assert ours["times"] == golden["times"]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_as_vllm(case: Case) -> None:
    check(case, RUNS[case["name"]])


@pytest.mark.parametrize("case", ahead_cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_as_vllm_that_runs_ahead(case: Case) -> None:
    check(case, AHEAD[case["name"]])


def test_recorded_traffic_preempts_and_reuses() -> None:
    def counts(name: str) -> tuple[int, int]:
        case = next(case for case in cases() if case["name"] == name)
        engine = engine_of(case)
        for number, row in enumerate(case["requests"]):
            engine.add(Request(number, row[0], row[1], row[2], tuple(row[3]), case["key_tokens"]))
        while engine.busy:
            engine.complete(engine.schedule(0.0), 0.0)
        return engine.preempted, engine.hits

    assert counts("preempting")[0] > 10
    assert counts("roomy")[1] > 1000
