"""Group-limited routing: how many nodes and ranks a token reaches when its experts lie in some groups only."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from windtunnel.network.collective import Collective
from windtunnel.network.expert import ExpertTraffic, within_groups
from windtunnel.network.model import NetworkModel
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
