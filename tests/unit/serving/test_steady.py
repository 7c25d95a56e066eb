"""Taking several decode steps at once changes nothing: the same times as one step after another."""

from __future__ import annotations

import random
from collections import Counter
from itertools import groupby

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.serving.traffic import Linear, replica, traffic
from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Request, Served, with_spans
from windtunnel.serving.router import Router
from windtunnel.serving.simulate import open_loop


def served(options: dict[str, int], seed: int, ranks: int) -> tuple[list[Served], Replica]:
    engine = replica(ranks=ranks, step=Linear(0.015625, 2**-13, 2**-20), **options)
    return open_loop(traffic(50, seed), Router([engine])), engine


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {
            "block_size": st.sampled_from([1, 4, 16, 64]),
            "max_num_seqs": st.integers(1, 20),
            "num_gpu_blocks": st.integers(480, 700),
            "max_num_batched_tokens": st.integers(20, 300),
            "state_groups": st.sampled_from([0, 0, 2]),
            "async_scheduling": st.booleans(),
        }
    ),
    st.integers(0, 1000),
    st.integers(1, 3),
)
def test_strides_change_nothing(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, int], seed: int, ranks: int
) -> None:
    strided, fast = served(options, seed, ranks)
    with monkeypatch.context() as patch:
        patch.setattr(Replica, "_steady", lambda self, until_s: False)
        single, slow = served(options, seed, ranks)
    assert list(map(rounded, strided)) == list(map(rounded, single))
    assert fast.steps == slow.steps
    assert fast.decode_steps == slow.decode_steps
    assert fast.now_s == pytest.approx(slow.now_s)
    assert [rank.preempted for rank in fast.ranks] == [rank.preempted for rank in slow.ranks]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 4, 16, 24]), st.integers(480, 700), st.integers(0, 2))
def test_stretches_of_keys_change_nothing(seed: int, block: int, blocks: int, drafts: int) -> None:
    options = {"block_size": block, "num_gpu_blocks": blocks, "max_num_batched_tokens": 64}
    if drafts:  # a block is then found only with the token after it
        options |= {"num_speculative_tokens": drafts, "acceptance": 0.8}  # type: ignore[dict-item]
    plain, spanned = replica(**options), replica(**options)
    requests = branching(60, seed)
    one = open_loop(requests, Router([plain]))
    two = open_loop(with_spans(requests), Router([spanned]))
    assert list(map(rounded, one)) == list(map(rounded, two))
    assert plain.ranks[0].hits == spanned.ranks[0].hits > 0


@given(st.integers(0, 1000))
def test_stretches_end_where_requests_part(seed: int) -> None:
    """Keys are chained, so neighbours that equally many requests have always come together."""
    requests = branching(60, seed)
    have = Counter(key for one in requests for key in one.keys)
    for one in with_spans(requests):
        same = [list(group) for _, group in groupby(one.keys, have.__getitem__)]
        assert list(one.spans) == [(keys[0], len(keys)) for keys in same]


def rounded(served: Served) -> tuple[float, ...]:
    """Everything about one request, times to the nanosecond: sums of steps differ in their last bits."""
    times = (served.admitted_s, served.first_token_s, served.finished_s)
    counts = (served.request.number, served.cached_tokens, served.preemptions)
    return (*(round(time, 9) for time in times), *counts)


def branching(count: int, seed: int) -> list[Request]:
    """Prompts that continue earlier ones or leave them half way."""
    draw = random.Random(seed)
    now, requests, known, fresh = 0.0, [], [()], 1
    for number in range(count):
        now += draw.expovariate(5.0)
        keys = draw.choice(known)
        keys = keys[: draw.randint(0, len(keys))]
        more = draw.randint(1, 5)
        keys += tuple(range(fresh, fresh + more))
        fresh += more
        known.append(keys)
        prompt = min(16 * len(keys), 400) - draw.randint(0, 15)
        requests.append(Request(number, now, prompt, draw.randint(1, 60), keys[: -(-prompt // 16)], 16))
    return requests


def test_who_comes_during_a_step_waits_for_the_end_of_the_next_where_the_engine_runs_ahead() -> None:
    def first_s(ahead: bool) -> float:
        one = replica(step=Linear(0.1, 0.0, 0.0), async_scheduling=ahead)
        running, late = (
            Request(0, 0.0, 8, 50),
            Request(1, 0.45, 8, 2),
        )  # the fifth step runs from 0.4 to 0.5 s
        return open_loop([running, late], Router([one]))[1].first_token_s

    assert first_s(ahead=False) == pytest.approx(0.6)
    assert first_s(ahead=True) == pytest.approx(0.7)
