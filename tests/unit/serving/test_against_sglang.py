"""The native scheduler with SGLang's rules against recorded decisions of SGLang's own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cases import condensed
from tests.engines.sglang_scheduler_cases import (
    Case,
    cases,
    draft_cases,
    host_cases,
    host_draft_cases,
    host_overlap_cases,
    host_state_cases,
    mixed_cases,
    overlap_cases,
    policy_cases,
    state_cases,
    state_draft_cases,
    state_mixed_cases,
    unbuffered_cases,
)
from windtunnel.serving import sglang_states
from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.host_state_tree import HostStateTree
from windtunnel.serving.kv_tiers import KvTiers, Tier, TierSpec
from windtunnel.serving.prefill_budget import SglangOptions, StateStrategy
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.radix_pool import RadixSequence
from windtunnel.serving.radix_tree import EvictionPolicy
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_checks import CheckedSequence
from windtunnel.serving.sglang_drafting import SglangDraftingScheduler
from windtunnel.serving.sglang_host import SglangHostDraftingScheduler, SglangHostScheduler
from windtunnel.serving.sglang_host_states import SglangHostStateDraftingScheduler, SglangHostStateScheduler
from windtunnel.serving.sglang_scheduler import SglangScheduler
from windtunnel.serving.sglang_state_drafting import SglangStateDraftingScheduler
from windtunnel.serving.sglang_states import SglangStateScheduler
from windtunnel.serving.step_plan import StepPlan

GOLDEN = Path(__file__).parents[2] / "golden" / "serving"


def recorded(name: str) -> dict[str, Any]:
    """Runs by their names."""
    text = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    return {run["name"]: run for run in json.loads(text)["runs"]}


RUNS = recorded("sglang_scheduler")
OVERLAPPING = recorded("sglang_overlap")
MIXED = recorded("sglang_mixed_chunks")
STATES = recorded("sglang_states")
HOSTED = recorded("sglang_host")
DRAFTED = recorded("sglang_drafts")
DRAFTED_STATES = recorded("sglang_state_drafts")
UNBUFFERED = recorded("sglang_unbuffered_states")
MIXED_STATES = recorded("sglang_mixed_states")
HOSTED_OVERLAP = recorded("sglang_host_overlap")
HOSTED_DRAFTS = recorded("sglang_host_drafts")
HOSTED_STATES = recorded("sglang_host_states")
POLICIES = recorded("sglang_policies")


def engine_of(case: Case) -> SglangScheduler:
    """The scheduler of a case."""
    options = case["options"]
    slots, tails = options.get("state_slots", 0), options.get("eviction_policy_config") or {}
    chosen = (
        SchedulerOptions(
            max_num_seqs=options["max_running_requests"],
            block_size=options["page_size"],
            num_gpu_blocks=options["max_total_tokens"] // options["page_size"],
            enable_prefix_caching=not options["disable_radix_cache"],
            schedule_policy=SchedulePolicy(options["schedule_policy"]),
            async_scheduling=options.get("overlap", False),
            num_speculative_tokens=options.get("num_speculative_tokens", 0),
            acceptance=options.get("acceptance", 0.0),
        ),
        SglangOptions(
            chunked_prefill_size=options["chunked_prefill_size"] or -1,
            max_prefill_tokens=options["max_prefill_tokens"],
            enable_mixed_chunk=options.get("mixed", False),
            schedule_conservativeness=options["schedule_conservativeness"],
            radix_eviction_policy=EvictionPolicy(options["radix_eviction_policy"]),
            tail_threshold=tails.get("threshold", 0),
            next_prompt_estimate=tails.get("next_prompt_estimate", 0),
            hicache_write_policy=WritePolicy(options.get("write_policy", "write_through")),
            mamba_radix_cache_strategy=StateStrategy(
                "no_buffer" if options.get("no_buffer") else "extra_buffer"
            ),
        ),
    )
    if "host_states" in options:
        places = (slots, options["host_states"], options["host_state_tokens"])
        drafting = "num_speculative_tokens" in options
        kind = SglangHostStateDraftingScheduler if drafting else SglangHostStateScheduler
        return kind(*chosen, host_memory(options), *places)
    if "num_speculative_tokens" in options and "host_tokens" in options:
        return SglangHostDraftingScheduler(*chosen, host_memory(options))
    if "num_speculative_tokens" in options:
        return SglangStateDraftingScheduler(*chosen, slots) if slots else SglangDraftingScheduler(*chosen)
    if "host_tokens" in options:
        return SglangHostScheduler(*chosen, host_memory(options))
    return SglangStateScheduler(*chosen, slots) if slots else SglangScheduler(*chosen)


def host_memory(options: dict[str, Any]) -> KvTiers:
    """What is beyond the card: one byte a token."""
    rate = 1 / options["host_token_s"]
    spec = TierSpec(
        name="host memory", capacity_tokens=options["host_tokens"], token_bytes=1.0, read_bytes_per_s=rate,
        write_bytes_per_s=rate,
    )  # fmt: skip
    return KvTiers([Tier(spec)], options["page_size"])


Decided = tuple[StepPlan, dict[int, int]]


def decide(engine: SglangScheduler, now: float) -> Decided:
    """The next step, and its tokens by request."""
    plan = engine.schedule(now)
    each = 1 if plan.chunks else 1 + engine.options.num_speculative_tokens
    tokens = {s.request.number: each for s in plan.decoded}
    tokens |= {chunk.sequence.request.number: chunk.new for chunk in plan.chunks}
    assert len(tokens) == plan.decodes + len(plan.chunks)
    return plan, tokens


Replayed = tuple[list[list[tuple[int, int]]], list[list[float]], dict[str, int]]


def replay(case: Case, bulk: bool = False) -> Replayed:
    """The native scheduler, stepped as the recorded one was; ``bulk``: steady steps by ``advance``."""
    rows = [
        Request(number, row[0], row[1], row[2], tuple(row[3]), case["key_tokens"])
        for number, row in enumerate(case["requests"])
    ]
    engine = engine_of(case)
    engine.lists_decoded = True
    now, place, steps, times = 0.0, 0, [], [[0.0, 0.0] for _ in rows]
    ahead: Decided | None = None
    while place < len(rows) or engine.busy:
        while place < len(rows) and rows[place].arrival_s <= now:
            engine.add(rows[place])
            place += 1
        if not engine.busy:
            now = max(now, rows[place].arrival_s)
            continue
        if bulk and ahead is None and engine.steady(1):
            tokens = {s.request.number: 1 for s in engine.running}
            steps.append(sorted(tokens.items()))
            now += case["fixed_s"] + case["token_s"] * len(tokens)
            engine.advance(1)
            continue
        if ahead is None and engine.options.async_scheduling:
            ahead = decide(engine, now)
            if engine.waits_s > now:  # who came meanwhile is seen by its next decision
                now = engine.waits_s
                continue
        plan, tokens = ahead or decide(engine, now)
        if engine.options.async_scheduling:
            following = decide(engine, now)
            ahead = None if following[0].empty else following
        assert tokens, "nothing runs"
        steps.append(sorted(tokens.items()))
        now = max(now, engine.held_s)
        now = max(
            now + (case["fixed_s"] + case["token_s"] * sum(tokens.values())), plan.loaded_s, engine.noted_s
        )
        for sequence in engine.complete(plan, now):
            times[sequence.request.number] = [sequence.first_s, now]
        assert 0 <= engine.pool.blank <= engine.pool.capacity
    counts = {"retracted": engine.preempted}
    if isinstance(engine, SglangHostScheduler):
        tree = engine.tree
        tree.now_s = float("inf")
        tree.poll()  # what is being written is held until then
        counts |= {"loaded": tree.loaded, "stored": tree.stored, "dropped": tree.dropped}
        assert tree.stored - tree.dropped == tree.host_tokens - tree.host_free
    assert engine.pool.free == engine.pool.capacity
    if isinstance(engine, SglangStateScheduler):
        assert engine.free_states + engine.tree.states == engine.slots
    return steps, times, counts


def check(case: Case, golden: dict[str, Any], bulk: bool = False) -> None:
    steps, times, counts = replay(case, bulk)
    ours = condensed(case["name"], steps, times)
    for index, step in golden["samples"].items():
        assert ours["samples"].get(index) == step, f"step {index}"
    assert ours["steps"] == golden["steps"]
    assert ours["sha256"] == golden["sha256"]
    assert ours["times"] == golden["times"]
    assert counts == {name: golden[name] for name in counts}


def name(case: Case) -> str:
    return str(case["name"]).replace(" ", "_")


@pytest.mark.parametrize("bulk", [False, True], ids=["stepped", "bulk"])
@pytest.mark.parametrize("case", cases(), ids=name)
def test_same_steps_as_sglang(case: Case, bulk: bool) -> None:
    check(case, RUNS[case["name"]], bulk)


@pytest.mark.parametrize("case", overlap_cases(), ids=name)
def test_same_steps_as_sglang_that_overlaps(case: Case) -> None:
    check(case, OVERLAPPING[case["name"]])


@pytest.mark.parametrize("case", mixed_cases(), ids=name)
def test_same_steps_as_sglang_that_mixes_chunks(case: Case) -> None:
    check(case, MIXED[case["name"]])


@pytest.mark.parametrize("bulk", [False, True], ids=["stepped", "bulk"])
@pytest.mark.parametrize("case", state_cases(), ids=name)
def test_same_steps_as_sglang_with_recurrent_states(case: Case, bulk: bool) -> None:
    check(case, STATES[case["name"]], bulk)


@pytest.mark.parametrize("case", draft_cases(), ids=name)
def test_same_steps_as_sglang_with_drafts(case: Case) -> None:
    check(case, DRAFTED[case["name"]])


@pytest.mark.parametrize("case", unbuffered_cases(), ids=name)
def test_same_steps_as_sglang_with_states_and_no_buffer(case: Case) -> None:
    check(case, UNBUFFERED[case["name"]])


@pytest.mark.parametrize("case", state_mixed_cases(), ids=name)
def test_same_steps_as_sglang_that_mixes_chunks_with_states(case: Case) -> None:
    check(case, MIXED_STATES[case["name"]])


@pytest.mark.parametrize("case", host_overlap_cases(), ids=name)
def test_same_steps_as_sglang_with_host_memory_that_overlaps(case: Case) -> None:
    check(case, HOSTED_OVERLAP[case["name"]])


@pytest.mark.parametrize("case", host_draft_cases(), ids=name)
def test_same_steps_as_sglang_with_drafts_and_host_memory(case: Case) -> None:
    check(case, HOSTED_DRAFTS[case["name"]])


@pytest.mark.parametrize("case", host_state_cases(), ids=name)
def test_same_steps_as_sglang_with_states_and_host_memory(case: Case) -> None:
    check(case, HOSTED_STATES[case["name"]])


@pytest.mark.parametrize("case", policy_cases(), ids=name)
def test_same_steps_as_sglang_by_policies_of_eviction(case: Case) -> None:
    check(case, POLICIES[case["name"]])


@pytest.mark.parametrize("case", state_draft_cases(), ids=name)
def test_same_steps_as_sglang_with_drafts_and_recurrent_states(case: Case) -> None:
    check(case, DRAFTED_STATES[case["name"]])


@pytest.mark.parametrize("bulk", [False, True], ids=["stepped", "bulk"])
@pytest.mark.parametrize("case", host_cases(), ids=name)
def test_same_steps_as_sglang_with_host_memory(case: Case, bulk: bool) -> None:
    check(case, HOSTED[case["name"]], bulk)


@pytest.mark.parametrize(
    ("policy", "left_out", "answer"),
    [
        ("write_through", "_complete_copy", None), ("write_through", "_evict_host_states", 0),
        ("write_back", "_write_back", None),
    ],
)  # fmt: skip
def test_copies_of_states_show_in_recordings(
    monkeypatch: pytest.MonkeyPatch, policy: str, left_out: str, answer: int | None
) -> None:
    case = next(case for case in host_state_cases() if case["name"] == f"states and host, few, {policy}")
    monkeypatch.setattr(HostStateTree, left_out, lambda self, of: answer)
    with pytest.raises(AssertionError):
        check(case, HOSTED_STATES[case["name"]])


@pytest.mark.parametrize("of", ["priority, tight", "tails, tight"])
def test_policies_of_eviction_show_in_recorded_steps(of: str) -> None:
    case = next(case for case in policy_cases() if case["name"] == of)
    plain = {**case, "options": {**case["options"], "radix_eviction_policy": "lru"}}
    assert condensed("", *replay(plain)[:2])["sha256"] != POLICIES[of]["sha256"]


def test_recorded_traffic_loads_and_drops() -> None:
    assert all(
        sum(run[what] for run in HOSTED_STATES.values()) > 30_000 for what in ("loaded", "stored", "dropped")
    )
    for policy in WritePolicy:
        runs = [run for name, run in HOSTED.items() if name.endswith(f", {policy}")]
        assert min(sum(run[what] for run in runs) for what in ("loaded", "stored", "dropped")) > 1000


def test_junctions_and_decoded_states_show_in_recorded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in state_cases() if case["name"] == "states, few")
    monkeypatch.setattr(sglang_states, "TRACK_INTERVAL", 1 << 30)
    assert condensed("", *replay(case)[:2])["sha256"] != STATES["states, few"]["sha256"]
    monkeypatch.undo()
    monkeypatch.setattr(sglang_states, "KERNEL_CHUNK", 128)
    assert condensed("", *replay(case)[:2])["sha256"] != STATES["states, few"]["sha256"]


def test_room_for_checks_and_pairs_of_tokens_show_in_recorded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in draft_cases() if case["name"] == "drafts, tight pages, overlap")
    golden = DRAFTED[case["name"]]["sha256"]
    monkeypatch.setattr(
        SglangDraftingScheduler, "_pages", lambda self, one: int(one.computed >= one.held * 16)
    )
    assert condensed("", *replay(case)[:2])["sha256"] != golden
    monkeypatch.undo()
    monkeypatch.setattr(CheckedSequence, "segments", RadixSequence.segments)
    monkeypatch.setattr(CheckedSequence, "keyable", RadixSequence.keyable)
    assert condensed("", *replay(case)[:2])["sha256"] != golden


def test_states_of_mixed_steps_and_of_last_checks_show_in_recorded_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = next(case for case in state_mixed_cases() if case["name"] == "states, burst, mixed")
    monkeypatch.setattr(SglangStateScheduler, "_decide", SglangScheduler._decide)
    assert condensed("", *replay(case)[:2])["sha256"] != MIXED_STATES[case["name"]]["sha256"]
    monkeypatch.undo()
    case = next(
        case for case in state_draft_cases() if case["name"] == "states and drafts, ending at states, overlap"
    )
    monkeypatch.setattr(CheckedSequence, "earlier", property(lambda self: 0, lambda self, value: None))
    assert condensed("", *replay(case)[:2])["sha256"] != DRAFTED_STATES[case["name"]]["sha256"]


def test_recorded_traffic_retracts_and_chunks() -> None:
    assert sum(run["retracted"] for run in DRAFTED.values()) > 20
    assert STATES["states, retracting"]["retracted"] > 3
    assert RUNS["retracting"]["retracted"] > 3
    assert RUNS["tight"]["steps"] > RUNS["roomy"]["steps"]
