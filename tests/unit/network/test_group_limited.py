"""Group-limited routing: how many nodes and ranks a token reaches when its experts lie in some groups only."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from windtunnel.network.collective import Collective
from windtunnel.network.expert import ExpertTraffic, memory_bytes, within_groups
from windtunnel.network.model import NetworkModel
from windtunnel.network.topology import GroupShape
from windtunnel.specs.targets import cluster_of


@pytest.mark.parametrize("places", [2, 4, 8, 16, 18, 144])
def test_groups_reach_as_many_places_as_drawing_them_does(places: int) -> None:
    """Four of eight groups, drawn at random, on nodes that hold several groups or a part of one."""
    source, groups, chosen = random.Random(0), 8, 4
    hit = 0.0
    for _ in range(4000):
        drawn = source.sample(range(groups), chosen)
        if places <= groups:
            hit += len({group * places // groups for group in drawn})
        else:
            hit += chosen * places / groups
    assert within_groups(places, groups, chosen) == pytest.approx(hit / 4000, rel=0.03)
    assert within_groups(places, 0, 0) == places


def test_group_limited_routing_sends_to_fewer_nodes() -> None:
    network = NetworkModel(cluster_of("h800", 64))
    ranks = tuple(range(64))
    anywhere = ExpertTraffic(tokens=4096, token_bytes=7168, top_k=8)
    grouped = replace(anywhere, groups=8, groups_chosen=4)
    free, limited = (
        network.collective_time(Collective.DISPATCH, 0, ranks, traffic=traffic).seconds
        for traffic in (anywhere, grouped)
    )
    assert 0.6 * free < limited < 0.8 * free  # 3.6 of 8 nodes, not 5.3


@pytest.mark.parametrize("kind", [Collective.DISPATCH, Collective.COMBINE])
def test_deepeps_first_releases_took_the_network_card_for_copies_that_stay_in_a_node(
    kind: Collective,
) -> None:
    def seconds(cards: int, traffic: ExpertTraffic) -> float:
        network = NetworkModel(cluster_of("h800", cards))
        return network.collective_time(kind, 0, tuple(range(cards)), traffic=traffic).seconds

    prompts = ExpertTraffic(tokens=4096, token_bytes=7168, top_k=8, node_limit=4)
    output = replace(prompts, tokens=128, low_latency=True)
    for traffic, cards, change in ((prompts, 32, "2025-04-21"), (output, 16, "2025-06-05")):
        today = seconds(cards, traffic)
        first = seconds(cards, replace(traffic, as_of="2025-02"))
        assert 1.15 * today < first < 2.5 * today
        assert seconds(cards, replace(traffic, as_of=change)) == today
    # DeepEP's own table of March 2025: 44 GB/s of four copies, and 186 microseconds to 64 ranks
    if kind is Collective.DISPATCH:
        assert seconds(32, replace(prompts, as_of="2025-03")) == pytest.approx(
            4096 * 7168 * 4 / 44e9, rel=0.1
        )
        assert seconds(64, replace(output, as_of="2025-03")) == pytest.approx(186e-6, rel=0.1)
    inside = replace(prompts, node_limit=0)
    assert seconds(8, replace(inside, as_of="2025-02")) == seconds(8, inside)  # one node: as today


def test_an_exchange_between_nodes_passes_the_network_cards_buffers_too() -> None:
    """Three passes for every copy that lands, four for every copy to a node; two ranks of one node have no card's."""
    prompts = ExpertTraffic(tokens=10, token_bytes=100, top_k=1)
    assert memory_bytes(prompts, GroupShape(16, 2, 8)) == pytest.approx(10 * 100 * (3 + 4))
    assert memory_bytes(prompts, GroupShape(8, 1, 8)) == pytest.approx(10 * 100 * 3)
    wide = replace(prompts, top_k=8)
    grouped = replace(wide, groups=8, groups_chosen=4)
    shape = GroupShape(32, 4, 8)
    assert memory_bytes(grouped, shape) < memory_bytes(wide, shape)
    assert memory_bytes(replace(wide, low_latency=True), shape) < memory_bytes(wide, shape)
