"""The queue's order against recorded answers of SGLang's SchedulePolicy over its RadixCache; and that it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.sglang_cases import queues
from tests.unit.serving.traffic import replica
from windtunnel.serving.kv_cache import BlockPool, Run
from windtunnel.serving.queue_order import SchedulePolicy, order_of
from windtunnel.serving.request import Request
from windtunnel.serving.router import Router
from windtunnel.serving.simulate import open_loop

GOLDEN = Path(__file__).parents[2] / "golden" / "serving" / "sglang_order.json"
ORDERS = json.loads(GOLDEN.read_text(encoding="utf-8"))["orders"]


class Holder:
    def __init__(self) -> None:
        self.runs: list[Run] = []


def ours(case: dict[str, Any]) -> list[int]:
    pool, parts = BlockPool(100_000), case["key_tokens"] // case["page"]
    for keys in case["cached"]:
        holder = Holder()
        hits, found = pool.find([(key, parts) for key in keys], 1 << 30)
        pool.touch(holder, hits)
        for key in keys[found // parts :]:
            pool.take(parts)
            pool.register(holder, key, 0, parts)
        pool.release(holder, 0)
    waiting = [
        Request(place, 0.0, prompt, output, tuple(keys), case["key_tokens"])
        for place, (keys, prompt, output, _) in enumerate(case["queue"])
    ]

    def cached(place: int) -> int:
        request = waiting[place]
        return (
            pool.find(request.runs(case["page"]), (request.prompt_tokens - 1) // case["page"])[1]
            * case["page"]
        )

    arrived = [row[3] for row in case["queue"]]
    return order_of(
        SchedulePolicy(case["policy"]), waiting, cached, lambda place: case["processed"] - arrived[place]
    )


@pytest.mark.parametrize("index", range(len(queues())))
def test_same_order_as_sglang(index: int) -> None:
    assert ours(queues()[index]) == ORDERS[index]


def test_the_policy_decides_who_goes_first() -> None:
    short, long = Request(0, 0.0, 32, 5, (1, 2), 16), Request(1, 0.0, 32, 50, (3, 4), 16)
    engines = {
        policy: replica(max_num_seqs=1, schedule_policy=policy)
        for policy in (SchedulePolicy.FCFS, SchedulePolicy.LOF)
    }
    first = {
        policy: min(open_loop([short, long], Router([engine])), key=lambda one: one.finished_s).request.number
        for policy, engine in engines.items()
    }
    assert first == {SchedulePolicy.FCFS: 0, SchedulePolicy.LOF: 1}


def test_longest_prefix_first_finds_more() -> None:
    """Two families of prompts in turn, a cache that holds one: taking a family together finds it again."""
    requests = [
        Request(n, 0.0, 320, 2, (*range(1000 * (n % 2), 1000 * (n % 2) + 18), 10_000 + n, 20_000 + n), 16)
        for n in range(40)
    ]
    found = {}
    for policy in (SchedulePolicy.FCFS, SchedulePolicy.LPM):
        engine = replica(max_num_seqs=1, num_gpu_blocks=24, schedule_policy=policy)
        open_loop(requests, Router([engine]))
        found[policy] = engine.ranks[0].hits
    assert found[SchedulePolicy.LPM] > 2 * found[SchedulePolicy.FCFS]
