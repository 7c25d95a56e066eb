"""Laws of links that several collectives use at once, and who shares what on which kind of node."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.network.chips import H100, L40S, S5000, network
from windtunnel.network.collective import Collective
from windtunnel.network.contention import Demand, Traffic, demands, served
from windtunnel.network.links import Links
from windtunnel.network.model import NetworkModel

MIB = 1 << 20

links = st.sampled_from([("nic", "out"), ("nic", "in"), ("links", "out"), ("links", "in")])
wishes = st.lists(
    st.builds(Demand, links, st.floats(0.01, 1.0)), max_size=3, unique_by=lambda demand: demand.link
).map(tuple)
traffic = st.lists(
    st.builds(Traffic, st.integers(0, 3), st.floats(0, 10), st.floats(0.01, 5), wishes),
    min_size=1,
    max_size=8,
)


def ends(items: list[Traffic]) -> list[float]:
    return served(items)[1]


@given(traffic)
def test_nobody_is_faster_than_alone_and_nobody_waits_for_ever(items: list[Traffic]) -> None:
    begins, done = served(items)
    whole = max(item.start_s for item in items) + sum(item.seconds for item in items) * (1 + len(items))
    for item, begin, end in zip(items, begins, done, strict=True):
        assert begin >= item.start_s - 1e-9
        assert end >= begin + item.seconds * (1 - 1e-9)
        assert end <= whole


@given(traffic)
def test_no_link_carries_more_than_it_can(items: list[Traffic]) -> None:
    begins, done = served(items)
    carried: dict[tuple[object, ...], float] = defaultdict(float)
    for item in items:
        for link, share in item.demands:
            carried[link] += share * item.seconds
    for amount in carried.values():
        assert amount <= (max(done) - min(begins)) * (1 + 1e-6)


@given(traffic)
def test_one_group_runs_one_after_another(items: list[Traffic]) -> None:
    begins, done = served(items)
    by_group: dict[object, list[tuple[float, float]]] = defaultdict(list)
    for item, begin, end in zip(items, begins, done, strict=True):
        by_group[item.group].append((begin, end))
    for spans in by_group.values():
        spans.sort()
        assert all(after >= end - 1e-9 for (_, end), (after, _) in pairwise(spans))


def test_two_full_loads_halve_each_other_and_a_small_one_is_let_through() -> None:
    full, small = (Demand(("nic", "out"), 1.0),), (Demand(("nic", "out"), 0.1),)
    assert ends([Traffic("a", 0, 1, full), Traffic("b", 0, 1, full)]) == pytest.approx([2, 2])
    assert ends([Traffic("a", 0, 1, full), Traffic("b", 0, 1, small)]) == pytest.approx([1.1, 1])
    # the first third is alone, then both share
    assert ends([Traffic("a", 0, 1, full), Traffic("b", 0.5, 1, full)]) == pytest.approx([1.5, 2.0])


def test_opposite_directions_do_not_meet() -> None:
    model = network(H100, 16)

    def asked(kind: Collective) -> tuple[Demand, ...]:
        time = model.collective_time(kind, 1e9, (0, 8))
        return demands(kind, time, model.shape((0, 8)), (0, 8), 0, model.links)

    assert {link for link, _ in asked(Collective.SEND)} == {("nic", "out")}
    assert {link for link, _ in asked(Collective.RECV)} == {("nic", "in")}


def shared_links(model: NetworkModel, one: tuple[int, ...], other: tuple[int, ...]) -> set[str]:
    both = []
    for ranks in (one, other):
        time = model.collective_time(Collective.ALL_REDUCE, 64 * MIB, ranks)
        asked = demands(Collective.ALL_REDUCE, time, model.shape(ranks), ranks, 0, model.links)
        both.append({link for link, share in asked if share > 0.05})
    return {str(link[0]) for link in both[0] & both[1]}


def test_groups_meet_on_switch_links_but_not_on_different_pairs_of_a_mesh() -> None:
    assert shared_links(network(H100), (0, 1), (0, 2)) == {"links"}
    assert shared_links(network(S5000), (0, 1), (0, 2)) == set()
    assert shared_links(network(S5000), (0, 1, 2, 3), (0, 1)) == {"pair"}


def test_groups_that_leave_the_node_meet_on_the_network_card() -> None:
    for chip in (H100, S5000):
        assert shared_links(network(chip, 64), (0, 8), (0, 16, 32)) == {"nic"}
    # behind PCIe the network card hangs on the same slot as the neighbours
    assert "slot" in shared_links(network(L40S, 64), (0, 1), (0, 8))


def test_beyond_the_pod_uplinks_fill_before_network_cards() -> None:
    links = replace(Links.of_chip(H100, 64), nodes_per_pod=4, oversubscription=4.0)
    model = NetworkModel(links)
    ranks = tuple(range(0, 64, 16))
    time = model.collective_time(Collective.ALL_GATHER, 1e10, ranks)
    asked = dict(demands(Collective.ALL_GATHER, time, model.shape(ranks), ranks, 0, links))
    assert asked[("uplink", "out")] == pytest.approx(4 * asked[("nic", "out")], rel=0.05)


def test_latency_leaves_the_links_free() -> None:
    model = network(H100)
    small = model.collective_time(Collective.ALL_REDUCE, 1024, tuple(range(8)))
    large = model.collective_time(Collective.ALL_REDUCE, 1e9, tuple(range(8)))
    assert small.link_busy < 0.05
    assert large.link_busy > 0.8
