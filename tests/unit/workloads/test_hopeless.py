"""Runs of teams are only given up where their percentiles miss the SLA, whatever is still to come."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from windtunnel.serving import metrics
from windtunnel.serving.metrics import Sla
from windtunnel.serving.request import Request, Served
from windtunnel.workloads.agents.capacity import parse_terms
from windtunnel.workloads.agents.graph import Call, CallGraph
from windtunnel.workloads.agents.hopeless import Hopeless
from windtunnel.workloads.agents.replay import TaskRun

CALL = Call(
    agent="a", kind="chat", after=(), gap_s=0.0, tool=False, prompt_tokens=10, output_tokens=5, blocks=(), common=0
)  # fmt: skip
GRAPH = CallGraph("g", "made", 16, (CALL, CALL, replace(CALL, output_tokens=1)))


def drawn(draw: random.Random) -> TaskRun:
    task = TaskRun(0, 1, 0.0, [], ended_s=draw.uniform(1.0, 3.0))
    for call in GRAPH.calls:
        first = draw.uniform(0.1, 0.3)
        last = first + (call.output_tokens - 1) * draw.uniform(0.01, 0.03)
        task.served.append(Served(Request(0, 0.0, 10, call.output_tokens), 0.0, first, last, 0, 0))
    return task


def misses(terms: tuple[Sla, ...], tasks: list[TaskRun]) -> bool:
    calls = [one for task in tasks for one in task.served]
    found = {
        "task": metrics.spread([task.seconds for task in tasks]),
        "ttft": metrics.spread([one.ttft_s for one in calls]),
        "tpot": metrics.spread([tpot for one in calls if (tpot := one.tpot_s) is not None]),
    }
    return not all(limit.met for limit in metrics.limits(terms, found))


@pytest.mark.parametrize("percentile", ["p50", "p90", "p99"])
@pytest.mark.parametrize("what", ["task<2s", "ttft<200ms", "tpot<20ms"])
def test_given_up_only_what_misses(what: str, percentile: str) -> None:
    draw = random.Random(1)
    name, limit = what.split("<")
    given_up = early = 0
    for _ in range(200):
        scale = draw.uniform(0.5, 1.5)
        seconds = float(limit.removesuffix("ms").removesuffix("s")) * scale
        terms = parse_terms(f"{name}:{percentile}<{seconds}{'ms' if 'ms' in limit else 's'}")
        tasks = [drawn(draw) for _ in range(draw.randint(1, 40))]
        run = Hopeless(terms, GRAPH, len(tasks))
        place = next((place for place, task in enumerate(tasks) if run.after(task)), -1)
        if place >= 0:
            assert misses(terms, tasks)
            given_up += 1
            early += place < len(tasks) - 1
    assert given_up > 20
    assert early > 10
    assert not Hopeless(parse_terms("task:mean<1s"), GRAPH, 1).after(drawn(draw))
