"""SGLang's pool of recurrent states: how memory is divided, and what a sequence holds of it."""

from __future__ import annotations

from windtunnel.serving.memory import StatePool
from windtunnel.serving.prefill_budget import SglangOptions, StateStrategy
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_states import SglangStateScheduler, states_per_sequence


def test_memory_is_divided_by_the_ratio_with_one_state_of_padding() -> None:
    slots, left = StatePool(ratio=1.0, per_sequence=5, sequences=256).divide(1000, 10)
    assert (slots, left) == (49, 500)


def test_drafts_leave_states_that_cost_memory() -> None:
    pool = StatePool(ratio=1.0, per_sequence=5, sequences=10_000, drafts=2)
    slots, left = pool.divide(100_000, 10)
    assert slots == (50_000 - 30) // (10 * (1 + 2 / 5))
    assert left == 100_000 - (slots + 1) * 10 - (slots // 5 + 1) * 2 * 10


def test_without_reuse_there_is_one_state_for_each_that_may_run() -> None:
    pool = StatePool(ratio=0.9, per_sequence=states_per_sequence(True, False), sequences=8, reuse=False)
    assert pool.divide(1000, 10) == (8, 910)


def test_too_little_memory_holds_nothing() -> None:
    assert StatePool(ratio=0.9, per_sequence=5, sequences=8).divide(60, 10) == (0, 0)


def serve(engine: SglangStateScheduler, request: Request, shipped: bool = False) -> int:
    """Serve one request alone; the answer is how much of its prompt was found."""
    sequence = engine.add(request, shipped)
    now = 0.0
    while engine.busy:
        plan = engine.schedule(now)
        now += 1.0
        engine.complete(plan, now)
    return sequence.cached_tokens


def engine_with(
    reuse: bool = True, strategy: StateStrategy = StateStrategy.EXTRA_BUFFER
) -> SglangStateScheduler:
    options = SchedulerOptions(block_size=1, num_gpu_blocks=20_000, enable_prefix_caching=reuse)
    sglang = SglangOptions(chunked_prefill_size=2048, mamba_radix_cache_strategy=strategy)
    return SglangStateScheduler(options, sglang, 20)


def test_without_a_buffer_a_prompt_is_found_up_to_where_its_chunks_ended() -> None:
    engine = engine_with(strategy=StateStrategy.AUTO)  # no overlap, pages of one token
    keys = tuple(range(50))
    assert serve(engine, Request(0, 0.0, 3000, 10, keys, 64)) == 0
    assert serve(engine, Request(1, 0.0, 3001, 10, keys, 64)) == 3000
    assert serve(engine, Request(2, 0.0, 2500, 10, keys, 64)) == 2048
    assert engine.free_states + engine.tree.states == engine.slots


def test_what_auto_comes_to() -> None:
    auto = StateStrategy.AUTO
    assert auto.chosen(ahead=True, page=1) is auto.chosen(ahead=False, page=64) is StateStrategy.EXTRA_BUFFER
    assert auto.chosen(ahead=False, page=1) is StateStrategy.NO_BUFFER
    assert states_per_sequence(False, True, buffered=False) == 3


def test_a_prompt_is_found_up_to_its_last_whole_64_tokens() -> None:
    engine = engine_with()
    keys = tuple(range(20))
    assert serve(engine, Request(0, 0.0, 1000, 10, keys, 64)) == 0
    assert serve(engine, Request(1, 0.0, 1000, 10, keys, 64)) == 960
    assert engine.free_states + engine.tree.states == engine.slots


def test_a_shared_beginning_is_found_by_the_third_prompt() -> None:
    engine = engine_with()
    found = [
        serve(engine, Request(n, 0.0, 1000, 10, (*range(8), *range(100 * n, 100 * n + 12)), 64))
        for n in (1, 2, 3)
    ]
    assert found == [0, 0, 512]  # the second one leaves a state where the first one's tokens end


def test_without_reuse_and_from_elsewhere_every_state_comes_back() -> None:
    for engine, shipped in ((engine_with(reuse=False), False), (engine_with(), True)):
        serve(engine, Request(0, 0.0, 1000, 300, tuple(range(20)), 64), shipped)
        assert engine.free_states == engine.slots
