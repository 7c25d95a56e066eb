"""SGLang's prompts and outputs on replicas of their own: laws that hold for any number of them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.unit.serving.test_handover_against_sglang import Steps
from windtunnel.serving.engine import Replica
from windtunnel.serving.handover import Handover
from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.request import Request, Served
from windtunnel.serving.router import Policy, Router
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sessions import Sessions
from windtunnel.serving.sglang_draft_outputs import DraftingOutputServer
from windtunnel.serving.sglang_outputs import OutputServer
from windtunnel.serving.sglang_prompts import PromptServer

STEP = Steps({"fixed_s": 0.02, "token_s": 1e-4})
WIRE_S = 1e-4


def traffic(count: int, rate: float, seed: int) -> list[Request]:
    draw, now, found = random.Random(seed), 0.0, []
    for number in range(count):
        now += draw.expovariate(rate)
        found.append(Request(number, now, draw.randint(1, 900), draw.randint(1, 120)))
    return found


def sides(ahead: bool, ranks: int, blocks: int, drafts: int) -> tuple[Router, Router]:
    """Two replicas for prompts and two for outputs."""
    options = SchedulerOptions(
        max_num_seqs=24,
        block_size=16,
        num_gpu_blocks=400,
        async_scheduling=ahead,
        enable_prefix_caching=False,
    )
    sglang = SglangOptions(chunked_prefill_size=256, num_reserved_decode_tokens=64)
    prompts = [Replica([PromptServer(options, sglang) for _ in range(ranks)], STEP, 2 + n) for n in range(2)]
    small = replace(options, num_gpu_blocks=blocks, num_speculative_tokens=drafts, acceptance=0.7)
    kind = DraftingOutputServer if drafts else OutputServer
    outputs = [Replica([kind(small, sglang) for _ in range(ranks)], STEP, n) for n in range(2)]
    return Router(prompts, Policy.LEAST_LOAD), Router(outputs, Policy.LEAST_LOAD)


def served(
    requests: list[Request], clients: int = 0, ahead: bool = True, ranks: int = 2, blocks: int = 120,
    drafts: int = 0,
) -> list[Served]:  # fmt: skip
    routers = sides(ahead, ranks, blocks, drafts)
    found = Handover(*routers, lambda n: WIRE_S * n, lambda n: WIRE_S * n).serve(Sessions(requests, clients))
    for router in routers:
        for replica in router.replicas:
            for rank in replica.ranks:
                assert not rank.running
                assert not rank.queued
                assert rank.pool.free == rank.pool.capacity
    return found


@pytest.mark.parametrize("ahead", [False, True], ids=["after_each_step", "overlap"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("clients", [0, 1, 5, 40])
@pytest.mark.parametrize("drafts", [0, 2])
def test_every_answer_comes_and_all_pages_go_back(drafts: int, clients: int, ranks: int, ahead: bool) -> None:
    requests = traffic(120, 30.0, seed=clients)
    found = served(requests, clients, ahead, ranks, drafts=drafts)
    assert [one.request.number for one in found] == list(range(120))
    for one in found:
        tokens, output = one.request.prompt_tokens, one.request.output_tokens
        last = tokens % 256 or 256  # of which all before may have left by then
        least = 0.02 + 1e-4 * tokens + WIRE_S * last
        assert one.first_token_s - one.request.arrival_s >= least - 1e-9
        assert one.finished_s - one.first_token_s >= 0.02 * ((output - 1) // (1 + drafts)) - 1e-9
    if clients:
        events = [(one.request.arrival_s, 1) for one in found] + [(one.finished_s, -1) for one in found]
        under_way = most = 0
        for _, change in sorted(events):
            under_way += change
            most = max(most, under_way)
        assert most <= clients


def test_one_after_another_takes_as_long_as_its_parts() -> None:
    requests = [Request(0, 0.0, 700, 3), Request(1, 5.0, 700, 1)]
    found = served(requests, ahead=False, ranks=1)
    computed = 3 * 0.02 + 700e-4
    first = computed + WIRE_S * 192  # 2 × 256 tokens have left, the last 188 are twelve pages
    assert found[0].first_token_s == pytest.approx(first)
    assert found[0].finished_s == pytest.approx(first + 2 * (0.02 + 1e-4))
    assert found[1].first_token_s == found[1].finished_s == pytest.approx(5.0 + first)


def test_full_decode_cards_hold_prompts_back() -> None:
    requests = traffic(120, 30.0, seed=3)
    tight, roomy = served(requests, blocks=100), served(requests, blocks=400)

    def first_s(found: list[Served]) -> float:
        return sum(one.ttft_s for one in found) / len(found)

    assert first_s(tight) > 2 * first_s(roomy)
