"""Clients that leave at any time: what sequences held under SGLang's rules comes back, on the card and beyond it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.host_state_tree import HostStateTree
from windtunnel.serving.host_tree import HostTree
from windtunnel.serving.kv_tiers import KvTiers, Tier, TierSpec
from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.radix_tree import Node, RadixTree
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_drafting import SglangDraftingScheduler
from windtunnel.serving.sglang_host import SglangHostDraftingScheduler
from windtunnel.serving.sglang_host_states import SglangHostStateDraftingScheduler, SglangHostStateScheduler
from windtunnel.serving.sglang_scheduler import SglangScheduler
from windtunnel.serving.sglang_state_drafting import SglangStateDraftingScheduler
from windtunnel.serving.sglang_states import SglangStateScheduler
from windtunnel.serving.step_plan import StepPlan

TOKENS, SLOTS, HOST_STATES, REQUESTS, STEPS = 4000, 60, 30, 60, 4000


def host_memory(page: int) -> KvTiers:
    spec = TierSpec(
        name="host memory", capacity_tokens=6000, token_bytes=1.0, read_bytes_per_s=1e5, write_bytes_per_s=1e5
    )
    return KvTiers([Tier(spec)], page)


Maker = Callable[[SchedulerOptions, SglangOptions], SglangScheduler]
MAKERS: dict[str, Maker] = {
    "drafts": SglangDraftingScheduler,
    "states": lambda o, s: SglangStateDraftingScheduler(o, s, SLOTS),
    "host": lambda o, s: SglangHostDraftingScheduler(o, s, host_memory(o.block_size)),
    "states, host": lambda o, s: SglangHostStateScheduler(
        o, s, host_memory(o.block_size), SLOTS, HOST_STATES, 64.0
    ),
    "states, host, drafts": lambda o, s: SglangHostStateDraftingScheduler(
        o, s, host_memory(o.block_size), SLOTS, HOST_STATES, 64.0
    ),
}


def options_of(draw: random.Random) -> tuple[SchedulerOptions, SglangOptions]:
    page = draw.choice((1, 16))
    return (
        SchedulerOptions(
            block_size=page, num_gpu_blocks=TOKENS // page, max_num_seqs=8, max_num_batched_tokens=512,
            num_speculative_tokens=draw.choice((1, 5)), acceptance=draw.random(), async_scheduling=draw.random() < 0.5,
        ),
        SglangOptions(
            chunked_prefill_size=256, enable_mixed_chunk=draw.random() < 0.5, schedule_conservativeness=0.3,
            hicache_write_policy=draw.choice(list(WritePolicy)),
        ),
    )  # fmt: skip


def serve(engine: SglangScheduler, draw: random.Random) -> None:
    """Requests come and leave; whoever stays is told all its output."""
    now, count, there = 0.0, 0, list[Sequence]()
    ahead: StepPlan | None = None
    for _ in range(STEPS):
        while count < REQUESTS and draw.random() < 0.15:
            keys = tuple(range(draw.randint(0, 9), 20))
            there.append(
                engine.add(Request(count, now, draw.randint(1, 600), draw.randint(1, 200), keys, 64))
            )
            count += 1
        if there and draw.random() < 0.02:
            engine.cancel(there.pop(draw.randrange(len(there))))
        if not engine.busy:
            if count >= REQUESTS:
                break
            now += 1
            continue
        plan = ahead or engine.schedule(now)
        ahead = None
        if engine.options.async_scheduling:
            following = engine.schedule(now)
            ahead = None if following.empty else following
        if plan.empty:
            now = max(now + 0.01, min(engine.wakes_s, now + 1))
            continue
        now = max(max(now, engine.held_s) + 0.01, plan.loaded_s, engine.noted_s)
        for sequence in engine.complete(plan, now):
            there.remove(sequence)
            assert sequence.generated == sequence.request.output_tokens
        assert 0 <= engine.pool.blank <= engine.pool.capacity
    assert not there


def nodes(tree: RadixTree) -> list[Node]:
    found = [tree.root]
    for node in found:
        found += node.children.values()
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", MAKERS)
def test_all_comes_back(kind: str, seed: int) -> None:
    draw = random.Random(seed)
    engine = MAKERS[kind](*options_of(draw))
    serve(engine, draw)
    tree = engine.tree
    if isinstance(tree, HostTree):
        tree.now_s = float("inf")
        tree.flush()
        tree.poll()
        assert sum(node.tokens for node in nodes(tree) if node.host) == tree.host_tokens - tree.host_free
    if isinstance(tree, HostStateTree):
        assert sum(node.state_host for node in nodes(tree)) == tree.host_states - tree.host_states_free
    assert engine.pool.free == engine.pool.capacity
    if isinstance(engine, SglangStateScheduler):
        assert engine.free_states + engine.tree.states == engine.slots
