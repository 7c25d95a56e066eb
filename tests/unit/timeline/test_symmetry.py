"""Which recorded rank stands for which, from the recorded ranks' numbers alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.errors import WindtunnelError
from windtunnel.timeline.symmetry import axes, stands_for


@given(inner=st.integers(1, 6), stages=st.integers(2, 8), outer=st.integers(1, 6))
def test_pipeline_anywhere_in_the_order_of_ranks(inner: int, stages: int, outer: int) -> None:
    """Stage = rank // inner % stages: outermost (outer = 1) as in TorchTitan, or inside data parallel."""
    world = inner * stages * outer
    recorded = [stage * inner for stage in range(stages)]
    answer = stands_for(recorded, world)
    assert answer == [rank // inner % stages for rank in range(world)]
    assert set(Counter(answer).values()) == {inner * outer}


@given(ring=st.integers(2, 4), middle=st.integers(1, 3), stages=st.integers(2, 4))
def test_rings_within_stages(ring: int, middle: int, stages: int) -> None:
    recorded = [stage * ring * middle + place for stage in range(stages) for place in range(ring)]
    world = ring * middle * stages
    answer = stands_for(recorded, world)
    for rank in range(world):
        representative = recorded[answer[rank]]
        assert representative % ring == rank % ring
        assert representative // (ring * middle) == rank // (ring * middle)


@pytest.mark.parametrize(("ranks", "world"), [([0, 3, 5], 16), ([0, 8], 24), ([0, 4, 8], 16), ([0, 1, 2], 8)])
def test_what_is_no_grid_is_refused(ranks: list[int], world: int) -> None:
    with pytest.raises(WindtunnelError) as raised:
        stands_for(ranks, world)
    assert raised.value.code == "E234"


def test_ranks_count_from_the_first_recorded() -> None:
    assert stands_for([3, 7], 8) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert stands_for([5, 9], 16)[5] == 0
    assert stands_for([5, 9], 16)[9] == 1


def test_ranks_that_nobody_needs_stand_for_themselves() -> None:
    """`--ranks 0,3` of four stages four ranks apart: rank 3 and the stages after it are recorded besides."""
    recorded = [0, 3, 4, 7, 8, 11, 12, 15]
    with pytest.raises(WindtunnelError):
        stands_for(recorded, 16)
    answer = stands_for(recorded, 16, besides={3, 7, 11, 15})
    assert [recorded[number] for number in answer] == [
        rank if rank in (3, 7, 11, 15) else rank // 4 * 4 for rank in range(16)
    ]
    # a regular pattern stays one, also of ranks asked for
    assert stands_for([0, 8], 16, besides={8}) == [0] * 8 + [1] * 8


def test_the_reason_is_said() -> None:
    with pytest.raises(WindtunnelError, match="repeats every 16 ranks, and 16 does not divide 24"):
        stands_for([0, 8], 24)
    with pytest.raises(WindtunnelError, match="no regular pattern"):
        stands_for([0, 3, 5], 16)


def test_one_rank_stands_for_all_and_all_for_themselves() -> None:
    assert stands_for([0], 1024) == [0] * 1024
    assert stands_for([0, 1, 2], 3) == [0, 1, 2]
    assert axes([0, 8, 16, 24], 32)[0].stride == 8
