"""Laws that any server keeps: nobody is lost, work is done once, blocks come back, load does not help."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serving.traffic import Linear, replica, traffic
from windtunnel.serving.arrivals import stretched
from windtunnel.serving.request import Request
from windtunnel.serving.router import Policy, Router
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.simulate import closed_disaggregated, closed_loop, disaggregated, open_loop
from windtunnel.serving.vllm_scheduler import VllmScheduler

SHAPES = st.fixed_dictionaries(
    {
        "block_size": st.sampled_from([1, 4, 16]),
        "max_num_seqs": st.integers(1, 24),
        "num_gpu_blocks": st.integers(480, 900),
        "enable_prefix_caching": st.booleans(),
        "prefill_first": st.booleans(),
        "guaranteed_no_evict": st.booleans(),
        "state_groups": st.sampled_from([0, 0, 3]),
    }
)


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 10_000), st.integers(1, 3), st.sampled_from(list(Policy)))
def test_everyone_is_served_and_blocks_come_back(
    options: dict[str, int], seed: int, copies: int, policy: Policy
) -> None:
    requests = traffic(60, seed)
    options = {**options, "max_num_batched_tokens": 64}
    replicas = [replica(ranks=1 + seed % 2, number=n, **options) for n in range(copies)]
    served = open_loop(requests, Router(replicas, policy))
    assert [one.request.number for one in served] == list(range(60))
    for one in served:
        assert one.request.arrival_s <= one.admitted_s < one.first_token_s <= one.finished_s
        assert 0 <= one.cached_tokens < one.request.prompt_tokens
        # a token a step at least, and no step is shorter than the fixed part
        assert one.finished_s - one.first_token_s >= 0.02 * (one.request.output_tokens - 1) - 1e-9
    for rank in (rank for one in replicas for rank in one.ranks):
        hybrid = options["state_groups"] and options["enable_prefix_caching"]
        assert hybrid or not (options["guaranteed_no_evict"] and rank.preempted)
        assert rank.pool.free == rank.pool.capacity
        assert rank.decodes == rank.contexts == 0


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 10_000))
def test_what_is_set_apart_is_what_running_sequences_will_ask_for(options: dict[str, int], seed: int) -> None:
    """Kept up as sequences come and go, and the same as if it were summed anew."""
    options = {**options, "guaranteed_no_evict": True, "state_groups": 0, "max_num_batched_tokens": 64}
    engine = replica(**options)
    (rank,) = engine.ranks
    assert isinstance(rank, VllmScheduler)

    def ungranted(one: Sequence) -> int:
        moved = rank.clock - one.joined_at if one.joined_at >= 0 else 0
        held = -(-(one.computed + moved) // rank.options.block_size)
        return -(-one.request.last_tokens // rank.options.block_size) - held

    for request in traffic(60, seed):
        engine.advance(request.arrival_s)
        engine.add(request)
        assert rank._room == rank.pool.free - sum(map(ungranted, rank.running))
        if request.number % 7 == 6 and rank.running:
            rank.cancel(next(reversed(rank.running)))
    engine.advance(float("inf"))
    assert rank._room == rank.pool.free == rank.pool.capacity


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_prompt_tokens_are_computed_once_without_reuse_and_preemption(seed: int) -> None:
    requests = traffic(50, seed)
    engine = replica(num_gpu_blocks=5000, enable_prefix_caching=False)
    served = open_loop(requests, Router([engine]))
    assert engine.prompt_tokens == sum(request.prompt_tokens for request in requests)
    assert sum(count for _, count in engine.gaps) == sum(r.output_tokens - 1 for r in requests)
    assert all(one.preemptions == 0 for one in served)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_reuse_never_computes_more(seed: int) -> None:
    requests = traffic(50, seed)
    tokens = []
    for reuse in (False, True):
        engine = replica(num_gpu_blocks=5000, enable_prefix_caching=reuse)
        served = open_loop(requests, Router([engine]))
        tokens.append(engine.prompt_tokens + sum(one.cached_tokens for one in served))
    assert tokens[0] == tokens[1] == sum(request.prompt_tokens for request in requests)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(1.1, 8.0))
def test_work_conservation(seed: int, speed: float) -> None:
    """A single engine is busy whenever someone waits: it ends no later when the same work comes earlier."""
    requests = traffic(40, seed, shared=False)
    ends = []
    for load in (requests, stretched(requests, speed)):
        engine = replica(max_num_seqs=1, num_gpu_blocks=5000)
        open_loop(load, Router([engine]))
        ends.append(engine.now_s)
        assert engine.busy_s == pytest.approx(
            sum(0.02 * r.output_tokens + 1e-4 * (r.prompt_tokens + r.output_tokens - 1) for r in requests)
        )
    assert ends[1] <= ends[0] + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(1.0, 6.0))
def test_one_at_a_time_more_load_never_shortens_a_wait(seed: int, speed: float) -> None:
    """With one place, waits follow Lindley's recursion, which is monotone in the gaps: provable for everyone."""
    requests = traffic(40, seed, shared=False)
    waits = []
    for load in (requests, stretched(requests, speed)):
        served = open_loop(load, Router([replica(max_num_seqs=1, num_gpu_blocks=5000)]))
        waits.append([one.ttft_s for one in served])
    assert all(fast >= slow - 1e-9 for slow, fast in zip(*waits, strict=True))


def test_batches_slow_down_with_load_on_average() -> None:
    """With batching only averages are bound to grow; twenty seeds together."""
    means = []
    for speed in (0.2, 1.0, 5.0):
        total = 0.0
        for seed in range(20):
            served = open_loop(stretched(traffic(60, seed), speed), Router([replica()]))
            total += sum(one.e2e_s for one in served)
        means.append(total)
    assert means == sorted(means)


def test_a_lone_request_by_hand() -> None:
    served = open_loop([Request(0, 1.0, 100, 5)], Router([replica(max_num_batched_tokens=64)]))
    (one,) = served
    prefill = 2 * 0.02 + 100 * 1e-4
    assert one.admitted_s == 1.0
    assert one.ttft_s == pytest.approx(prefill)
    assert one.tpot_s == pytest.approx(0.02 + 1e-4)
    assert one.e2e_s == pytest.approx(prefill + 4 * (0.02 + 1e-4))


def test_ranks_wait_for_the_slowest() -> None:
    pair = replica(ranks=2)
    served = open_loop([Request(0, 0.0, 400, 2), Request(1, 0.0, 1, 2)], Router([pair]))
    assert served[0].first_token_s == served[1].first_token_s == pytest.approx(0.02 + 400e-4)


def test_closed_loop_keeps_its_clients_busy() -> None:
    requests = [Request(number, 0.0, 10, 4) for number in range(40)]
    engine = replica(enable_prefix_caching=False)
    served = closed_loop(requests, [engine], 4)
    assert len(served) == 40
    tokens = sum(count for _, count in engine.gaps)
    assert tokens == 40 * 3
    assert tokens / 4 <= engine.decode_steps < tokens
    starts = sorted(one.request.arrival_s for one in served)
    assert starts[:4] == [0.0] * 4
    assert starts[4] == pytest.approx(served[0].finished_s)


def test_closed_loop_as_fast_as_its_step() -> None:
    """With n clients in step and equal lengths, throughput is n tokens a step."""
    engine = replica(step=Linear(0.02, 0.0), enable_prefix_caching=False, max_num_batched_tokens=4096)
    served = closed_loop([Request(n, 0.0, 8, 16) for n in range(64)], [engine], 8)
    assert max(one.finished_s for one in served) == pytest.approx(8 * 16 * 0.02)


def test_disaggregated_ships_each_cache_once_and_in_turn() -> None:
    requests = [replace(request, arrival_s=0.0) for request in traffic(20, 3, shared=False)]
    first, second = replica(number=1), replica(number=0)
    served = disaggregated(requests, Router([first]), Router([second]), lambda tokens: 0.5)
    assert [one.request.number for one in served] == list(range(20))
    assert second.prompt_tokens == 0 or second.ranks[0].preempted
    assert first.prompt_tokens + sum(one.cached_tokens for one in served) == sum(
        r.prompt_tokens for r in requests
    )
    several = [one for one in served if one.request.output_tokens > 1]
    by_prompt = sorted(several, key=lambda one: (one.first_token_s, one.request.number))
    for place, one in enumerate(by_prompt):
        # caches leave one after another: the n-th cannot be there before n transfers
        assert one.finished_s >= by_prompt[0].first_token_s + 0.5 * (place + 1)
    for rank in (*first.ranks, *second.ranks):
        assert rank.pool.free == rank.pool.capacity


def test_chunks_that_leave_early_shorten_the_wait_for_the_network() -> None:
    """Four chunks of 512 tokens, each sent faster than the next is computed: only the last is waited for."""

    def decoded_s(parts: bool) -> float:
        first = replica(step=Linear(0.1, 0.0), max_num_batched_tokens=512, num_gpu_blocks=4000)
        second = replica(step=Linear(0.1, 0.0), num_gpu_blocks=4000)
        wire = lambda tokens: 1e-4 * tokens  # noqa: E731
        request = [Request(0, 0.0, 2048, 2)]
        (one,) = disaggregated(request, Router([first]), Router([second]), wire, wire if parts else None)
        assert one.first_token_s == pytest.approx(0.4)
        return one.finished_s

    assert decoded_s(parts=False) == pytest.approx(0.4 + 0.2048 + 0.1)
    assert decoded_s(parts=True) == pytest.approx(0.4 + 0.0512 + 0.1)


def test_cache_in_parts_sends_every_token_once_and_is_never_later() -> None:
    requests = [
        replace(one, prompt_tokens=one.prompt_tokens + 300, output_tokens=one.output_tokens + 1, keys=())
        for one in traffic(60, 9, rate=30.0)
    ]

    def run(parts: bool) -> tuple[list[float], int]:
        sent = 0

        def wire(tokens: int) -> float:
            nonlocal sent
            sent += tokens
            return 1e-5 * tokens

        routers = [Router([replica(number=number, max_num_batched_tokens=64)]) for number in (1, 0)]
        served = disaggregated(requests, *routers, wire, wire if parts else None)
        return [one.finished_s for one in served], sent

    (whole, all_tokens), (early, in_parts) = run(False), run(True)
    assert all_tokens == in_parts
    assert sum(early) < sum(whole)


def test_cache_aware_routing_finds_more() -> None:
    requests = []
    for number in range(120):
        family = number % 4
        keys = tuple(range(100 * family, 100 * family + 20))
        requests.append(Request(number, number * 0.5, 320, 4, keys, 16))
    hits = {}
    for policy in Policy:
        replicas = [replica(number=n, num_gpu_blocks=60) for n in range(3)]
        served = open_loop(requests, Router(replicas, policy))
        hits[policy] = sum(one.cached_tokens for one in served)
    assert hits[Policy.CACHE_AWARE] > 1.5 * hits[Policy.ROUND_ROBIN]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_the_same_load_gives_the_same_answer(seed: int) -> None:
    def once() -> list[tuple[float, float]]:
        served = open_loop(traffic(40, seed), Router([replica(), replica(number=1)]))
        return [(one.first_token_s, one.finished_s) for one in served]

    assert once() == once()


def test_no_evict_admits_what_can_stay() -> None:
    requests = [Request(number, 0.0, 100, 200) for number in range(20)]
    tight = {"num_gpu_blocks": 60, "block_size": 16, "enable_prefix_caching": False}
    bold, careful = replica(**tight), replica(**tight, guaranteed_no_evict=True)
    for engine in (bold, careful):
        open_loop(requests, Router([engine]))
    assert bold.ranks[0].preempted > 0
    assert careful.ranks[0].preempted == 0
    assert careful.prompt_tokens == 2000 < bold.prompt_tokens


def pair() -> tuple[Router, Router]:
    """One prefill replica and two for decoding."""
    return Router([replica(number=2)]), Router([replica(number=0), replica(number=1)])


def test_closed_loop_apart_is_the_open_one_when_all_come_at_once() -> None:
    requests = [replace(request, arrival_s=0.0) for request in traffic(60, seed=2)]
    together = disaggregated(requests, *pair(), lambda tokens: 1e-3 * tokens)
    closed = closed_disaggregated(requests, *pair(), lambda tokens: 1e-3 * tokens, 100)
    assert [one.request.number for one in closed] == [one.request.number for one in together]
    assert [one.first_token_s for one in closed] == pytest.approx([one.first_token_s for one in together])
    assert [one.finished_s for one in closed] == pytest.approx([one.finished_s for one in together])


@pytest.mark.parametrize("clients", [1, 3, 10])
def test_closed_loop_apart_never_has_more_than_its_clients_under_way(clients: int) -> None:
    served = closed_disaggregated(traffic(80, seed=4), *pair(), lambda tokens: 0.3, clients)
    assert len(served) == 80
    events = [(one.request.arrival_s, 1) for one in served] + [(one.finished_s, -1) for one in served]
    under_way = most = 0
    for _, change in sorted(events):
        under_way += change
        most = max(most, under_way)
    assert most == clients
    for one in served:
        if one.request.output_tokens > 1:
            assert one.finished_s >= one.first_token_s + 0.3  # its cache crossed the network
    if clients == 1:
        ends = sorted(one.finished_s for one in served)
        starts = sorted(one.request.arrival_s for one in served)
        assert starts[1:] == pytest.approx(ends[:-1])
