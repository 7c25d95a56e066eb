"""Which way NCCL takes: steps of the measured tables that its tuning model explains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.network.collective import Collective
from windtunnel.network.nccl import Way, ways

MIB = 1 << 20
RINGS = [Collective.ALL_REDUCE, Collective.ALL_GATHER, Collective.REDUCE_SCATTER]


def way(kind: Collective, nbytes: float, ranks: int, link: float, capability: int) -> Way:
    taken = ways(kind, ranks, link, capability, True, True)
    return [name for name, since in taken if nbytes >= since][-1]


@given(
    st.sampled_from(RINGS),
    st.integers(2, 72),
    st.floats(1e10, 2e12),
    st.sampled_from([8, 9, 10, 12]),
    st.booleans(),
    st.booleans(),
)
def test_ways_begin_at_nothing_and_end_with_the_fastest(
    kind: Collective, ranks: int, link: float, capability: int, nvlink: bool, in_switch: bool
) -> None:
    taken = ways(kind, ranks, link, capability, nvlink, in_switch)
    sizes = [since for _, since in taken]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    assert taken[-1][0] in (Way.SIMPLE, Way.IN_SWITCH)
    if ranks <= 8:  # beyond, so many steps may take longer than the switch's start
        assert taken[0][0] is Way.LL
    assert len({name for name, _ in taken}) == len(taken)
    if not nvlink:
        assert Way.LL128 not in {name for name, _ in taken}


@pytest.mark.parametrize(
    ("kind", "ranks", "link", "capability", "below", "above"),
    [  # aiconfigurator: times jump between these two sizes
        (Collective.ALL_GATHER, 4, 450e9, 9, 2 * MIB, 4 * MIB),
        (Collective.ALL_GATHER, 2, 300e9, 8, MIB, 2 * MIB),
        (Collective.REDUCE_SCATTER, 4, 300e9, 8, MIB, 2 * MIB),
        (Collective.ALL_REDUCE, 2, 450e9, 9, MIB, 2 * MIB),
    ],
)
def test_steps_of_measured_curves_are_where_ll_ends(
    kind: Collective, ranks: int, link: float, capability: int, below: int, above: int
) -> None:
    assert way(kind, below, ranks, link, capability) is Way.LL
    assert way(kind, above, ranks, link, capability) is not Way.LL


def test_switches_reduce_over_six_cards_or_more_since_hopper() -> None:
    assert way(Collective.ALL_REDUCE, 64 * MIB, 8, 450e9, 9) is Way.IN_SWITCH
    assert way(Collective.ALL_REDUCE, 64 * MIB, 5, 450e9, 9) is Way.SIMPLE
    assert way(Collective.ALL_REDUCE, 64 * MIB, 8, 300e9, 8) is Way.SIMPLE
