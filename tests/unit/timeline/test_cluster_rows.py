"""What is drawn of a cluster: lanes that show the pipeline, a critical path that crosses ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.network.chips import H100, network
from tests.unit.timeline.ranks_program import collective, mm, program
from tests.unit.timeline.test_cluster import MM_S, FixedCost
from windtunnel.results.run_result import RankResult, RunResult
from windtunnel.timeline.cluster_predict import predict_cluster
from windtunnel.timeline.cover import Cover


def predicted(*ranks: list) -> RunResult:
    programs = [program(ops, rank=i, world=len(ranks)) for i, ops in enumerate(ranks)]
    return predict_cluster(programs, H100, network(H100), model_for=lambda chip: FixedCost())


def pipeline() -> RunResult:
    first = [mm(), collective("send", peer=1), collective("recv_", peer=1), mm()]
    second = [collective("recv_", peer=0), mm(), mm(), collective("send", peer=0)]
    return predicted(first, second)


def working_s(rank: RankResult) -> float:
    return sum(piece.duration_s for piece in rank.lane if piece.what == "forward")


def test_a_lane_shows_work_and_leaves_out_waiting() -> None:
    result = pipeline()
    first, second = result.ranks
    step_s = result.step_time_s.value
    for rank in (first, second):
        assert working_s(rank) == pytest.approx(2 * MM_S, rel=0.05)
        assert all(piece.start_s + piece.duration_s <= step_s * 1.001 for piece in rank.lane)
    # the second stage waits for the first, and the first for the gradient
    assert min(piece.start_s for piece in second.lane if piece.what == "forward") >= MM_S
    assert any(piece.what == "communication" for piece in first.lane)


def test_the_critical_path_goes_through_both_ranks() -> None:
    result = pipeline()
    critical = [rank.critical for rank in result.ranks]
    assert sorted(critical) == [False, True]
    other = result.ranks[critical.index(False)]
    on_path = sum(span.duration_s for span in result.spans if span.critical)
    elsewhere = sum(span.duration_s for span in other.spans if span.critical)
    assert on_path > 0
    assert elsewhere > 0
    assert on_path + elsewhere >= result.step_time_s.value * 0.99
    assert all(other.names[span.op] for span in other.spans if span.op >= 0)


def test_intervals_are_those_of_the_cluster_not_of_a_rank_alone() -> None:
    late = predicted([collective("allreduce_")], [mm(), mm(), collective("allreduce_")])
    reduce = next(span for span in late.spans if late.ops[span.op].name.startswith("c10d"))
    assert reduce.start_s == pytest.approx(2 * MM_S)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), max_size=12), st.floats(0, 20))
def test_cover_counts_every_moment_once(intervals: list[tuple[float, float]], until: float) -> None:
    start = np.array([begin for begin, _ in intervals])
    end = np.array([begin + length for begin, length in intervals])
    grid = np.linspace(0, until, 4001)
    middle = (grid[1:] + grid[:-1]) / 2
    inside = np.zeros(len(middle), dtype=bool)
    for begin, finish in zip(start, end, strict=True):
        inside |= (middle > begin) & (middle < finish)
    expected = inside.sum() * until / 4000
    assert float(Cover(start, end)(np.array([until]))[0]) == pytest.approx(expected, abs=0.02 * max(until, 1))


def test_what_ifs_are_of_the_step_of_all_ranks() -> None:
    """A rank alone waits for nobody: with kernels that no fact of the chip moves, what-ifs change next to nothing."""
    result = pipeline()
    assert result.sensitivities
    for what in result.sensitivities:
        assert what.step_time_s == pytest.approx(result.step_time_s.value, rel=0.02)
