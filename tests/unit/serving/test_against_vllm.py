"""The native scheduler against recorded decisions of vLLM: every batch, every request's times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cases import Case, cases, condensed
from windtunnel.serving.hybrid import scheduler_for
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.scheduler_options import SchedulerOptions

GOLDEN = Path(__file__).parents[2] / "golden" / "serving" / "vllm_scheduler.json"
RUNS: dict[str, Any] = {run["name"]: run for run in json.loads(GOLDEN.read_text(encoding="utf-8"))["runs"]}


def engine_of(case: Case) -> Scheduler:
    """The scheduler of a case; latent attention needs nothing but its block size."""
    options = {name: value for name, value in case["options"].items() if name != "latent"}
    return scheduler_for(SchedulerOptions(**options))


def replay(case: Case) -> dict[str, Any]:
    """The native scheduler, stepped as the recorded one was."""
    rows = [
        Request(number, row[0], row[1], row[2], tuple(row[3]), case["key_tokens"])
        for number, row in enumerate(case["requests"])
    ]
    engine = engine_of(case)
    now, place, steps, times = 0.0, 0, [], [[0.0, 0.0] for _ in rows]
    while place < len(rows) or engine.busy:
        while place < len(rows) and rows[place].arrival_s <= now:
            engine.add(rows[place])
            place += 1
        if not engine.busy:
            now = max(now, rows[place].arrival_s)
            continue
        plan = engine.schedule(now)
        tokens = {s.request.number: 1 for s in engine.running if s.joined_at >= 0}
        tokens |= {chunk.sequence.request.number: chunk.new for chunk in plan.chunks}
        assert len(tokens) == plan.decodes + len(plan.chunks)
        assert plan.contexts == sum(
            s.computed + engine.clock - s.joined_at for s in engine.running if s.joined_at >= 0
        )
        steps.append(sorted(tokens.items()))
        now += case["fixed_s"] + case["token_s"] * sum(tokens.values())
        for sequence in engine.complete(plan, now):
            times[sequence.request.number] = [sequence.first_s, now]
    assert engine.pool.free == engine.pool.capacity
    return condensed(case["name"], steps, times)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_as_vllm(case: Case) -> None:
    golden, ours = RUNS[case["name"]], replay(case)
    for index, step in golden["samples"].items():
        assert ours["samples"].get(index) == step, f"step {index}"
    assert ours["steps"] == golden["steps"]
    assert ours["sha256"] == golden["sha256"]
    assert ours["times"] == golden["times"]


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
