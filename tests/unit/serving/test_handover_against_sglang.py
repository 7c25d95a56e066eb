"""Prompts and outputs on servers of their own against recorded decisions of SGLang's own queues."""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import pytest

from tests.engines.cases import Case, condensed
from tests.engines.sglang_disagg_cases import cases, draft_cases
from windtunnel.serving.engine import Replica
from windtunnel.serving.handover import Handover
from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.request import Request
from windtunnel.serving.router import Router
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sessions import Sessions
from windtunnel.serving.sglang_draft_outputs import DraftingOutputServer
from windtunnel.serving.sglang_outputs import OutputQueues, OutputServer
from windtunnel.serving.sglang_prompts import PromptServer
from windtunnel.serving.step_plan import StepPlan

GOLDEN = Path(__file__).parents[2] / "golden" / "serving"
RUNS: dict[str, Any] = {
    run["name"]: run
    for name in ("sglang_disagg", "sglang_disagg_drafts")
    for run in json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))["runs"]
}


class Steps:
    """Step times of a case."""

    def __init__(self, case: Case) -> None:
        self.fixed_s, self.token_s = case["fixed_s"], case["token_s"]
        self.checked = 1 + case.get("decode", {}).get("num_speculative_tokens", 0)

    def decode_s(self, decodes: int, contexts: int) -> float:
        return float(self.fixed_s + self.token_s * self.checked * decodes)

    def decode_line(self, decodes: int, contexts: int) -> tuple[float, float, int]:
        return self.decode_s(decodes, contexts), 0.0, 1 << 30

    def mixed_s(self, decodes: int, contexts: int, chunks: Seq[tuple[int, int]]) -> float:
        return float(self.fixed_s + self.token_s * sum(new for new, _ in chunks))

    def whole_s(self, decodes: int, contexts: int, chunks: Seq[tuple[int, int]]) -> float:
        return self.decode_s(decodes, contexts)

    def experts_s(self, tokens: float) -> float:
        return 0.0

    def images_s(self, request: Request, first: int, end: int) -> float:
        raise NotImplementedError


class Log:
    """What a server decided. ``begins``: when a request's first step begins."""

    def __init__(self, case: Case) -> None:
        self.seconds = Steps(case)
        self.steps: list[list[tuple[int, int]]] = []
        self.begins: dict[int, float] = {}

    def step(self, plan: StepPlan, ends_s: float) -> None:
        tokens = {s.request.number: self.seconds.checked for s in plan.decoded}
        tokens |= {chunk.sequence.request.number: chunk.new for chunk in plan.chunks}
        assert len(tokens) == plan.decodes + len(plan.chunks)
        self.steps.append(sorted(tokens.items()))
        for number in tokens:
            seconds = self.seconds.fixed_s + self.seconds.token_s * sum(tokens.values())
            self.begins.setdefault(number, ends_s - seconds)


class Prompts(PromptServer):
    log: Log

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        self.log.step(plan, now_s)
        return super().complete(plan, now_s)

    def experts_s(self, tokens: float) -> float:
        return 0.0


class Watching(OutputQueues):
    log: Log
    bulk = False

    def schedule(self, now_s: float) -> StepPlan:
        plan = super().schedule(now_s)
        for number in self.set_aside:
            asides.setdefault(number, now_s)
        return plan

    def steady(self, most: int) -> int:
        return super().steady(most) if self.bulk else 0

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        if not self.bulk:
            self.log.step(plan, now_s)
        return super().complete(plan, now_s)


class Outputs(Watching, OutputServer):
    """Without drafts."""


class DraftingOutputs(Watching, DraftingOutputServer):
    """With them."""


asides: dict[int, float] = {}


class Watched(Handover):
    """``came_s``: when a cache arrives."""

    came_s: dict[int, float]

    def _tell(self, at_s: float, event: Any, number: int) -> None:
        if event.name == "CACHE":
            self.came_s[number] = at_s
        super()._tell(at_s, event, number)


def replay(case: Case, bulk: bool) -> tuple[Prompts, Watching, Watched, list[Any]]:
    """The native servers on a case's traffic; ``bulk``: steady steps at once."""
    options, decode = case["options"], case["decode"]
    sglang = SglangOptions(
        chunked_prefill_size=options["chunked_prefill_size"] or -1,
        max_prefill_tokens=options["max_prefill_tokens"],
        num_reserved_decode_tokens=decode["num_reserved_decode_tokens"],
        disaggregation_decode_extra_slots=decode["extra_slots"],
    )

    drafts = decode.get("num_speculative_tokens", 0)

    def chosen(side: dict[str, Any], reuse: bool) -> SchedulerOptions:
        return SchedulerOptions(
            max_num_seqs=side["max_running_requests"],
            block_size=options["page_size"],
            num_gpu_blocks=side["max_total_tokens"] // options["page_size"],
            enable_prefix_caching=reuse,
            schedule_policy=SchedulePolicy(options["schedule_policy"]),
            async_scheduling=options.get("overlap", False),
            num_speculative_tokens=side.get("num_speculative_tokens", 0),
            acceptance=side.get("acceptance", 0.0),
        )

    prompts = Prompts(chosen(options, not options["disable_radix_cache"]), sglang)
    outputs = (DraftingOutputs if drafts else Outputs)(chosen(decode, False), sglang)
    prompts.log, outputs.log, outputs.bulk = Log(case), Log(case), bulk
    outputs.lists_decoded = True
    asides.clear()
    rows = [
        Request(number, row[0], row[1], row[2], tuple(row[3]), case["key_tokens"])
        for number, row in enumerate(case["requests"])
    ]

    def wire_s(tokens: int) -> float:
        return float(options["wire_fixed_s"] + options["wire_token_s"] * tokens)

    steps = Steps(case)
    pair = Watched(
        Router([Replica([prompts], steps)]), Router([Replica([outputs], steps, 1)]), wire_s, wire_s
    )
    pair.came_s = {}
    served = pair.serve(Sessions(rows))
    assert [one.request.number for one in served] == list(range(len(rows)))
    for engine in (prompts, outputs):
        assert engine.pool.free == engine.pool.capacity
        assert not engine.running
        assert not engine.queued
    return prompts, outputs, pair, served


def name(case: Case) -> str:
    return str(case["name"]).replace(" ", "_")


@pytest.mark.parametrize("bulk", [False, True], ids=["stepped", "bulk"])
@pytest.mark.parametrize("case", [*cases(), *draft_cases()], ids=name)
def test_same_decisions_as_sglang(case: Case, bulk: bool) -> None:
    golden = RUNS[case["name"]]
    prompts, outputs, pair, served = replay(case, bulk)
    ours = condensed("", prompts.log.steps, [])
    for index, step in golden["samples"].items():
        assert ours["samples"].get(index) == step, f"step {index} of prompts"
    assert ours["sha256"] == golden["sha256"]
    if not bulk:
        ours = condensed("", outputs.log.steps, [])
        for index, step in golden["decode_samples"].items():
            assert ours["samples"].get(index) == step, f"step {index} of outputs"
        assert ours["sha256"] == golden["decode_sha256"]
        begins = [outputs.log.begins.get(number, -1.0) for number in range(len(served))]
        assert begins == pytest.approx([one[3] for one in golden["moments"]], abs=1e-6)
    assert outputs.preempted == golden["retracted"]
    for place, found in enumerate((asides, prompts.log.begins, pair.came_s)):
        ours_s = [found[number] for number in range(len(served))]
        assert ours_s == pytest.approx([one[place] for one in golden["moments"]], abs=1e-6)
    times = [[one.first_token_s, one.finished_s] for one in served]
    for number, (mine, theirs) in enumerate(zip(times, golden["times"], strict=True)):
        assert mine == pytest.approx(theirs, abs=1e-6), number


def test_recorded_traffic_waits_for_pages_and_retracts() -> None:
    case = next(case for case in cases() if case["name"] == "held back")
    waits = [one[0] - row[0] for one, row in zip(RUNS["held back"]["moments"], case["requests"], strict=True)]
    assert max(waits) > 1
    assert RUNS["retracting"]["retracted"] > 30
