"""The native scheduler with SGLang's rules against recorded decisions of SGLang's own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cases import condensed
from tests.engines.sglang_scheduler_cases import Case, cases
from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.radix_tree import EvictionPolicy
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_scheduler import SglangScheduler

GOLDEN = Path(__file__).parents[2] / "golden" / "serving" / "sglang_scheduler.json"
RUNS: dict[str, Any] = {run["name"]: run for run in json.loads(GOLDEN.read_text(encoding="utf-8"))["runs"]}


def engine_of(case: Case) -> SglangScheduler:
    """The scheduler of a case."""
    options = case["options"]
    return SglangScheduler(
        SchedulerOptions(
            max_num_seqs=options["max_running_requests"],
            block_size=options["page_size"],
            num_gpu_blocks=options["max_total_tokens"] // options["page_size"],
            enable_prefix_caching=not options["disable_radix_cache"],
            schedule_policy=SchedulePolicy(options["schedule_policy"]),
        ),
        SglangOptions(
            chunked_prefill_size=options["chunked_prefill_size"] or -1,
            max_prefill_tokens=options["max_prefill_tokens"],
            schedule_conservativeness=options["schedule_conservativeness"],
            radix_eviction_policy=EvictionPolicy(options["radix_eviction_policy"]),
        ),
    )


def replay(case: Case, bulk: bool = False) -> tuple[list[list[tuple[int, int]]], list[list[float]], int]:
    """The native scheduler, stepped as the recorded one was; ``bulk``: steady steps at once."""
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
        if bulk and engine.steady(1):
            tokens = {s.request.number: 1 for s in engine.running}
            steps.append(sorted(tokens.items()))
            now += case["fixed_s"] + case["token_s"] * len(tokens)
            engine.advance(1)
            continue
        plan = engine.schedule(now)
        tokens = {chunk.sequence.request.number: chunk.new for chunk in plan.chunks}
        if plan.decodes:
            tokens = {s.request.number: 1 for s in engine.running if s.joined_at >= 0}
        assert tokens, "nothing runs"
        steps.append(sorted(tokens.items()))
        now += case["fixed_s"] + case["token_s"] * sum(tokens.values())
        for sequence in engine.complete(plan, now):
            times[sequence.request.number] = [sequence.first_s, now]
        assert 0 <= engine.pool.blank <= engine.pool.capacity
    assert engine.pool.free == engine.pool.capacity
    return steps, times, engine.preempted


@pytest.mark.parametrize("bulk", [False, True], ids=["stepped", "bulk"])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_as_sglang(case: Case, bulk: bool) -> None:
    golden = RUNS[case["name"]]
    steps, times, retracted = replay(case, bulk)
    ours = condensed(case["name"], steps, times)
    for index, step in golden["samples"].items():
        assert ours["samples"].get(index) == step, f"step {index}"
    assert ours["steps"] == golden["steps"]
    assert ours["sha256"] == golden["sha256"]
    assert ours["times"] == golden["times"]
    assert retracted == golden["retracted"]


def test_recorded_traffic_retracts_and_chunks() -> None:
    assert RUNS["retracting"]["retracted"] > 3
    assert RUNS["tight"]["steps"] > RUNS["roomy"]["steps"]
