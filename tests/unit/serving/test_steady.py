"""Taking several decode steps at once changes nothing: the same times as one step after another."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.serving.traffic import Linear, replica, traffic
from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Served
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
    assert strided == single
    assert fast.steps == slow.steps
    assert fast.now_s == slow.now_s
    assert [rank.preempted for rank in fast.ranks] == [rank.preempted for rank in slow.ranks]
