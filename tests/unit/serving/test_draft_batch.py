"""Sequences that check drafts as a batch: the same steps, to the last bit, as when each is decided by itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serving.test_steady import branching
from tests.unit.serving.traffic import Linear, replica, traffic
from windtunnel.serving.acceptance import accepted, accepted_from
from windtunnel.serving.draft_batch import DraftBatch
from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Request, Served
from windtunnel.serving.router import Router
from windtunnel.serving.simulate import open_loop

OPTIONS = st.fixed_dictionaries(
    {
        "block_size": st.sampled_from([1, 4, 16, 64, 256]),
        "max_num_seqs": st.integers(1, 20),
        "num_gpu_blocks": st.sampled_from([60, 120, 520, 560, 600, 700, 3000]),
        "max_num_batched_tokens": st.sampled_from([20, 60, 200, 2048]),
        "num_speculative_tokens": st.integers(1, 5),
        "acceptance": st.sampled_from([0.0, 0.5, 0.8, 0.95, 1.0]),
        "async_scheduling": st.booleans(),
        "enable_prefix_caching": st.booleans(),
        "state_groups": st.sampled_from([0, 0, 1, 2]),
    }
)


def served(
    requests: list[Request], ranks: int, options: dict[str, int], apart: bool
) -> tuple[list[Served], Replica]:
    engine = replica(ranks=ranks, step=Linear(0.015625, 2**-13, 2**-20), **options)
    for rank in engine.ranks:
        rank.lists_decoded = apart
    return open_loop([one for one in requests if engine.ranks[0].fits(one)], Router([engine])), engine


@settings(max_examples=60, deadline=None)
@given(OPTIONS, st.integers(0, 1000), st.integers(1, 3), st.booleans(), st.sampled_from([5.0, 30.0]))
def test_a_batch_changes_nothing(
    options: dict[str, int], seed: int, ranks: int, branches: bool, rate: float
) -> None:
    requests = branching(50, seed) if branches else traffic(50, seed, rate)
    alone, one = served(requests, ranks, options, apart=True)
    batched, other = served(requests, ranks, options, apart=False)
    assert batched == alone
    assert [done.request.number for done in other.served] == [done.request.number for done in one.served]
    assert (other.steps, other.now_s, other.gaps) == (one.steps, one.now_s, one.gaps)
    assert other.used_blocks == one.used_blocks
    for rank, other_rank in zip(one.ranks, other.ranks, strict=True):
        assert other_rank.preempted == rank.preempted
        assert (other_rank.pool.free, other_rank.hits) == (rank.pool.free, rank.hits)


def test_sequences_are_in_the_batch_and_leave_it_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"joined": 0, "withdrawn": 0}
    join, withdraw = DraftBatch.join, DraftBatch.withdraw

    def joining(self: DraftBatch, *rest: int) -> bool:
        found["joined"] += (answer := join(self, *rest))  # type: ignore[arg-type]
        return answer

    def withdrawing(self: DraftBatch, *rest: int) -> object:
        found["withdrawn"] += 1
        return withdraw(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DraftBatch, "join", joining)
    monkeypatch.setattr(DraftBatch, "withdraw", withdrawing)
    options = {"num_gpu_blocks": 60, "num_speculative_tokens": 2, "acceptance": 0.8}
    _, engine = served(traffic(60, 3, 30.0), 1, options, apart=False)
    assert found["joined"] > 50
    assert found["withdrawn"] > 1
    assert engine.ranks[0].preempted > 5


@pytest.mark.parametrize("chance", [0.0, 0.05, 0.5, 0.8, 0.99, 1.0])
@pytest.mark.parametrize("drafts", [1, 3, 7])
def test_draws_at_once_are_those_one_by_one(chance: float, drafts: int) -> None:
    for number in (0, 1, 77, 12_345_678, (1 << 45) + 3):
        one_by_one = [accepted(number, 40 + step, drafts, chance) for step in range(500)]
        assert accepted_from(number, 40, 500, drafts, chance).tolist() == one_by_one
