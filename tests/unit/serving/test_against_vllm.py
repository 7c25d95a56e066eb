"""The native scheduler against recorded decisions of vLLM: every batch, every request's times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cases import (
    Case,
    ahead_cases,
    cases,
    condensed,
    digest,
    draft_cases,
    offload_cases,
    state_draft_cases,
)
from windtunnel.serving.drafting import DraftingScheduler
from windtunnel.serving.hybrid import scheduler_for
from windtunnel.serving.kv_tiers import KvTiers, Tier, TierSpec
from windtunnel.serving.offload_scheduler import OffloadScheduler
from windtunnel.serving.offloading import Job
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.state_drafting import StateDraftingScheduler, StateDraftingSequence
from windtunnel.serving.step_plan import StepPlan

GOLDEN = Path(__file__).parents[2] / "golden" / "serving"


def recorded(name: str) -> dict[str, Any]:
    """Runs by their names."""
    text = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    return {run["name"]: run for run in json.loads(text)["runs"]}


RUNS, AHEAD, OFFLOADED, DRAFTED, STATES_DRAFTED = map(
    recorded, ("vllm_scheduler", "vllm_run_ahead", "vllm_offload", "vllm_drafts", "vllm_state_drafts")
)
NOT_OURS = ("latent", "host_blocks", "host_block_s")


def engine_of(case: Case) -> Scheduler:
    """The scheduler of a case; latent attention needs nothing but its block size."""
    options = {name: value for name, value in case["options"].items() if name not in NOT_OURS}
    engine = scheduler_for(SchedulerOptions(**options), host_memory(case["options"]))
    engine.lists_decoded = True
    return engine


def host_memory(options: dict[str, Any]) -> KvTiers | None:
    """What is beyond the card: one byte a token."""
    if "host_blocks" not in options:
        return None
    size, block_s = options["block_size"], options["host_block_s"]
    spec = TierSpec(
        name="host memory", capacity_tokens=size * options["host_blocks"], token_bytes=1.0,
        read_bytes_per_s=size / block_s, write_bytes_per_s=size / block_s,
    )  # fmt: skip
    return KvTiers([Tier(spec)], size)


class Moves:
    """What a scheduler has loaded, stored and dropped, in order."""

    def __init__(self, engine: OffloadScheduler) -> None:
        self.offload, self.moves, self.loads = engine.offload, list[list[Any]](), list[list[Any]]()
        self.refused = 0
        offer, load, launch = self.offload.offer, self.offload.load, self.offload.launch

        def offered(sequence: Sequence, tokens: int) -> list[Job]:
            jobs = offer(sequence, tokens)
            self.moves += [["store", sequence.request.number, len(job.blocks)] for job in jobs]
            self.refused += sequence in self.offload.behind
            return jobs

        def loaded(sequence: Sequence, have: int, near: int, far: int) -> None:
            load(sequence, have, near, far)
            self.loads.append(["load", sequence.request.number, near])

        def launched(*step: Any) -> None:
            place = len(self.moves)
            launch(*step)
            self.moves[place:place] = self.loads
            self.loads.clear()

        self.offload.__dict__.update(offer=offered, load=loaded, launch=launched)

    def counts(self) -> dict[str, Any]:
        """As the recorded runs have them."""
        loaded = sum(blocks for kind, _, blocks in self.moves if kind == "load")
        host = self.offload.host
        return {
            "loaded": loaded, "stored": host.stored, "evicted": host.dropped, "refused": self.refused,
            "moves": digest([self.moves]),
        }  # fmt: skip


Decided = tuple[StepPlan, dict[int, int]]


def decide(engine: Scheduler, now: float) -> Decided:
    """The next step, and its tokens by request."""
    plan = engine.schedule(now)
    if isinstance(engine, DraftingScheduler):
        return plan, {part.sequence.request.number: part.new for part in engine.newest}
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
    moves = Moves(engine) if isinstance(engine, OffloadScheduler) else None
    now, place, steps, times = 0.0, 0, [], [[0.0, 0.0] for _ in rows]
    ahead: Decided | None = None
    while place < len(rows) or engine.busy:
        while place < len(rows) and rows[place].arrival_s <= now:
            engine.add(rows[place])
            place += 1
        arrival = rows[place].arrival_s if place < len(rows) else float("inf")
        if not engine.busy:
            now = max(now, arrival)
            continue
        plan, tokens = ahead or decide(engine, now)
        ahead = None
        if plan.empty:  # everything waits for what is on its way
            assert not engine.busy or now < min(engine.wakes_s, arrival) < float("inf")
            now = now if not engine.busy else min(engine.wakes_s, arrival)
            continue
        if engine.options.async_scheduling:
            following = decide(engine, now)
            ahead = None if following[0].empty else following
        steps.append(sorted(tokens.items()))
        now = max(now, engine.held_s)
        now += case["fixed_s"] + case["token_s"] * sum(tokens.values())
        for sequence in engine.complete(plan, now):
            times[sequence.request.number] = [sequence.first_s, now]
    assert engine.pool.free == engine.pool.capacity
    found = condensed(case["name"], steps, times)
    return {**found, **moves.counts()} if moves else found


def check(case: Case, golden: dict[str, Any]) -> None:
    ours = replay(case)
    for index, step in golden["samples"].items():
        assert ours["samples"].get(index) == step, f"step {index}"
    assert ours["steps"] == golden["steps"]
    assert ours["sha256"] == golden["sha256"]
    assert ours["times"] == golden["times"]
    for moved in ("loaded", "stored", "evicted", "refused", "moves"):
        assert ours.get(moved) == golden.get(moved)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_as_vllm(case: Case) -> None:
    check(case, RUNS[case["name"]])


@pytest.mark.parametrize("case", ahead_cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_as_vllm_that_runs_ahead(case: Case) -> None:
    check(case, AHEAD[case["name"]])


@pytest.mark.parametrize("case", offload_cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_and_moves_as_vllm_with_host_memory(case: Case) -> None:
    check(case, OFFLOADED[case["name"]])


@pytest.mark.parametrize("case", draft_cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_as_vllm_with_drafts(case: Case) -> None:
    check(case, DRAFTED[case["name"]])


@pytest.mark.parametrize("case", state_draft_cases(), ids=lambda case: case["name"].replace(" ", "_"))
def test_same_steps_as_vllm_with_states_and_drafts(case: Case) -> None:
    check(case, STATES_DRAFTED[case["name"]])


def test_states_of_drafts_show_in_recorded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in state_draft_cases() if case["name"] == "states and drafts, tight")
    monkeypatch.setattr(
        StateDraftingScheduler, "_state_blocks", lambda self, one, tokens: 0 if one.begun else self._groups
    )
    monkeypatch.setattr(StateDraftingScheduler, "_grow", _one_state)
    assert replay(case)["sha256"] != STATES_DRAFTED[case["name"]]["sha256"]


def _one_state(engine: StateDraftingScheduler, one: StateDraftingSequence, tokens: int) -> None:
    """As if drafts had no states: one is held from the beginning on."""
    if not one.begun:
        engine._hold(one, 1)
    one.begun = True


def test_recorded_traffic_moves() -> None:
    assert all(
        sum(run[what] for run in OFFLOADED.values()) > 50
        for what in ("loaded", "evicted", "refused", "flushes")
    )


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
