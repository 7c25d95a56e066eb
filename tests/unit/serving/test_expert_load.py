"""Experts on ranks: placed as engines' own balancers place them, and what the busiest then carries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.placement_cases import placements
from windtunnel.errors import WindtunnelError
from windtunnel.recipes.serving_experts import busiest_draw
from windtunnel.recipes.serving_layout import Imbalance
from windtunnel.serving.expert_load import batch_imbalance, imbalances, includes_chance, recording
from windtunnel.serving.expert_placement import ExpertRanks, busiest, rank_loads, slots_of

GOLDEN = Path(__file__).parents[2] / "golden" / "serving" / "expert_placement.json"
EP32 = ExpertRanks(256, 32, 32, groups=8)


def test_experts_on_whole_slots() -> None:
    assert slots_of(256, 144) == 2
    assert slots_of(256, 32) == 8
    assert slots_of(256, 32, 32) == 9


def test_placed_as_the_balancers_of_both_engines_place() -> None:
    answers = json.loads(GOLDEN.read_text(encoding="utf-8"))["orders"]
    for case, engines in zip(placements(), answers, strict=True):
        loads = case["loads"]
        where = ExpertRanks(len(loads[0]), case["ranks"], case["redundant"], case["groups"], case["per_node"])
        ours = [busiest(layer, where)[0] for layer in loads]
        for theirs in engines:
            assert ours == pytest.approx(theirs, abs=2e-4)


@given(
    st.lists(st.floats(0.01, 100.0), min_size=64, max_size=64),
    st.sampled_from([8, 16, 32]),
    st.sampled_from([0, 32]),
    st.sampled_from([0, 4, 8]),
)
def test_no_load_is_lost(loads: list[float], ranks: int, redundant: int, groups: int) -> None:
    where = ExpertRanks(64, ranks, redundant, groups)
    found = rank_loads(loads, where)
    rank, node = busiest(loads, where)
    assert len(found) == ranks
    assert sum(found) == pytest.approx(sum(loads))
    assert 1.0 <= node <= rank * (1 + 1e-9)


def test_balanced_and_power_law() -> None:
    where = ExpertRanks(256, 32)
    assert imbalances("balanced", where) == imbalances("forced", where) == (Imbalance(),)
    assert imbalances("power-law:1.0", ExpertRanks(256, 1)) == (Imbalance(),)
    (skewed,) = imbalances("power-law:1.0", where)
    (mended,) = imbalances("power-law:1.0", ExpertRanks(256, 32, 32))
    assert 1.0 <= mended.prompts < skewed.prompts
    assert skewed.nodes < skewed.prompts == skewed.decode
    assert imbalances("power-law:0", where)[0].prompts == pytest.approx(1.0)
    for kind in ("power-law:x", "published:x", "published:0", "/no/such/file"):
        with pytest.raises(WindtunnelError) as caught:
            imbalances(kind, where)
        assert caught.value.code == "E657"


def test_recorded_loads_as_the_team_that_recorded_them_simulated_them() -> None:
    """Points of its chart: mean over busiest rank with spare slots, whose prompts' length it does not state."""
    for ranks, published in ((8, 0.943), (16, 0.902), (32, 0.800)):
        where = ExpertRanks(256, ranks, 32, groups=8)
        batch = batch_imbalance(where.packed)
        found = []
        for length in (1024, 2048, 4096):
            loads = recording("prompts", length)
            found.append(sum(1 / busiest(layer, where)[0] for layer in loads) / len(loads) / batch)
        assert min(found) - 0.01 <= published <= max(found) + 0.01
    loads, where = recording("decode", 2000), ExpertRanks(256, 72, 32, groups=8)
    mean = sum(1 / busiest(layer, where)[0] for layer in loads) / len(loads)
    assert mean / batch_imbalance(72) == pytest.approx(0.81, abs=0.005)


def test_published_loads_by_length_and_phase() -> None:
    means = [Imbalance.mean(imbalances(f"published:{length}", EP32)) for length in (512, 1024, 2048, 4096)]
    assert [one.prompts for one in means] == sorted(one.prompts for one in means)
    assert means[1] == Imbalance.mean(imbalances("published", EP32))
    assert Imbalance.mean(imbalances("published:3000", EP32)) == means[3]
    for one in means:
        assert 1.0 < one.nodes < one.prompts
    plain = Imbalance.mean(imbalances("published:4096", ExpertRanks(256, 32, groups=8)))
    assert plain.prompts > 2 * means[3].prompts
    parts = imbalances("published:4096", EP32)
    assert [one.prompts for one in parts] == sorted(one.prompts for one in parts)
    assert parts[-1].prompts > 1.5 * parts[0].prompts
    with pytest.raises(WindtunnelError, match="256 experts"):
        imbalances("published", ExpertRanks(128, 32))


def test_groups_that_divide_by_nodes_leave_popular_nodes_busy() -> None:
    loads = [4.0] * 8 + [1.0] * 56
    assert busiest(loads, ExpertRanks(64, 32, 32, groups=8))[1] == pytest.approx(40 / 22)
    assert busiest(loads, ExpertRanks(64, 32, 32))[1] < 1.1
    assert busiest(loads, ExpertRanks(64, 24, 32, groups=8))[1] < 1.1  # eight groups on three nodes


def test_chance_of_a_batch() -> None:
    assert includes_chance("published:4096")
    assert includes_chance("published")
    assert includes_chance("forced")
    assert not includes_chance("balanced")
    assert batch_imbalance(1) == 1.0
    assert batch_imbalance(8) == pytest.approx(1 / 0.943)
    assert batch_imbalance(8) < batch_imbalance(32) < batch_imbalance(72) == batch_imbalance(144)
    assert busiest_draw(100.0, 1) == 1.0
    assert 1.0 < busiest_draw(10000.0, 64) < busiest_draw(100.0, 64) < 1.5
    assert busiest_draw(100.0, 4) < busiest_draw(100.0, 144)


def test_measured_loads(tmp_path: Path) -> None:
    table = tmp_path / "loads.csv"
    table.write_text("expert,load\n0,10\n1,10\n2,10\n3,30\n")
    (found,) = imbalances(str(table), ExpertRanks(4, 2))
    assert found.prompts == found.decode == pytest.approx(40 / 30)
    assert imbalances(str(table), ExpertRanks(4, 2, 2))[0].prompts == pytest.approx(1.0, abs=0.35)
    with pytest.raises(WindtunnelError, match="4 loads for 8"):
        imbalances(str(table), ExpertRanks(8, 2))


def test_measured_loads_of_every_layer(tmp_path: Path) -> None:
    """SGLang's dumps: dense layers have no loads."""
    layers = [[0, 0, 0, 0], [10, 10, 10, 30], [1, 1, 1, 1]]
    path = tmp_path / "loads.json"
    path.write_text(json.dumps({"logical_count": layers}))
    parts = imbalances(str(path), ExpertRanks(4, 2))
    assert Imbalance.mean(parts).prompts == pytest.approx((1 + 40 / 30) / 2)
    path.write_text(json.dumps(layers[1:]))
    assert imbalances(str(path), ExpertRanks(4, 2)) == parts
    for broken in (
        {"loads": layers},
        [[0, 0, 0, 0]],
        [],
        {"logical_count": [[1, "x", 1, 1]]},
        [[1, -1, 1, 1]],
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(WindtunnelError) as caught:
            imbalances(str(path), ExpertRanks(4, 2))
        assert caught.value.code == "E657"
