"""Chips by name, alias and override; clusters by what `--on` says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip, chip_names
from windtunnel.specs.cluster import FabricKind
from windtunnel.specs.overrides import FIELDS
from windtunnel.specs.schema import Trust
from windtunnel.specs.targets import CARDS_MAX, cluster_of, parse_target


def outcome(ask: Callable[[], object]) -> object:
    """The answer, or the code of the error."""
    try:
        return ask()
    except WindtunnelError as error:
        return error.code


@pytest.mark.parametrize(
    ("word", "name"), [("h100", "h100-sxm"), ("H100", "h100-sxm"), (" S5000 ", "mtt-s5000")]
)
def test_aliases_in_any_case(word: str, name: str) -> None:
    assert chip(word).name == name


def test_an_unknown_chip_gets_a_suggestion() -> None:
    with pytest.raises(WindtunnelError) as caught:
        chip("mtt-s500")
    assert caught.value.code == "E101"
    assert "did you mean `mtt-s5000`?" in caught.value.hint


def test_an_override_is_marked() -> None:
    changed = chip("h20", ["memory_bytes_per_s=1.4e12", "peak_flops.fp64=500G", "memory_bytes=90GiB"])
    assert changed.memory_bytes_per_s.value == 1.4e12
    assert changed.memory_bytes_per_s.source == "command line"
    assert changed.memory_bytes_per_s.trust is Trust.ASSUMED
    assert changed.peak_flops["fp64"].value == 500e9
    assert changed.memory_bytes.value == 90 * 2**30
    assert changed.overrides == ("memory_bytes_per_s=1.4e12", "peak_flops.fp64=500G", "memory_bytes=90GiB")
    assert chip("h20").memory_bytes_per_s.value == 4e12


def test_an_override_can_state_a_missing_peak() -> None:
    assert chip("a100-80g", ["a100-80g.peak_flops.fp8=624T"]).peak_flops["fp8"].value == 624e12


def test_an_override_of_another_chip_is_passed_over() -> None:
    assert chip("h20", ["h100.tdp_w=1", "h100-sxm.tdp_w=1"]) == chip("h20")


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("memory_bytes_per_s", "E107"),
        ("=3", "E107"),
        ("tdp_w=", "E107"),
        ("tdp=3", "E107"),
        ("peak_flops.fp9=1", "E107"),
        ("peak_flops=1", "E107"),
        ("nosuch.tdp_w=1", "E107"),
        ("tdp_w=fast", "E107"),
        ("tdp_w=nan", "E107"),
        ("tdp_w=1e999", "E107"),
        ("memory_bytes_per_s=3TB/s", "E107"),
        ("tdp_w=-5", "E106"),
        ("tdp_w=0", "E106"),
        ("link_bytes_per_s=0", "E106"),
    ],
)
def test_bad_overrides(override: str, code: str) -> None:
    with pytest.raises(WindtunnelError) as caught:
        chip("h100-sxm", [override])
    assert caught.value.code == code


@given(st.text(max_size=40) | st.builds("{}={}".format, st.sampled_from(FIELDS), st.text(max_size=12)))
def test_any_override_is_taken_or_refused_with_a_code(override: str) -> None:
    changed = outcome(lambda: chip("h100-sxm", [override]).overrides)
    assert changed in ((override,), "E106", "E107")


@given(st.text(max_size=30))
def test_any_target_is_taken_or_refused_with_a_code(text: str) -> None:
    answer = outcome(lambda: all(cluster.cards >= 1 for cluster in parse_target(text)))
    assert answer in (True, "E101", "E102", "E220")


def test_targets() -> None:
    small, big = parse_target("mtt-s5000:64, h100")
    assert (small.chip.name, small.cards, small.nodes) == ("mtt-s5000", 64, 8)
    assert (big.chip.name, big.cards, big.nodes) == ("h100-sxm", 1, 1)
    (rack,) = parse_target("gb200-nvl72:144")
    assert (rack.chip.name, rack.nodes) == ("gb200", 2)
    (changed,) = parse_target("h20:8", ["link_bytes_per_s=1e9"])
    assert changed.node.link_bytes_per_s.value == 1e9


def test_a_chip_that_no_cluster_file_knows() -> None:
    card = replace(chip("mtt-s5000"), name="mine", cards_per_node=4, links=6)
    cluster = cluster_of(card, 8)
    assert (cluster.name, cluster.nodes) == ("mine:8", 2)
    assert cluster.node.links_per_pair == 2
    assert cluster.node.effective_pair_bytes_per_s is None
    assert cluster.node.provenance.trust is Trust.ASSUMED


@given(st.sampled_from(chip_names()), st.integers(1, 10_000))
def test_nodes_hold_all_cards_and_none_is_empty(name: str, cards: int) -> None:
    cluster = cluster_of(name, cards)
    full = cluster.node.cards
    assert (cluster.nodes - 1) * full < cards <= cluster.nodes * full


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "E220"),
        ("h100:", "E220"),
        (":8", "E220"),
        ("h100:eight", "E220"),
        ("h100:-8", "E220"),
        ("h100:1.5", "E220"),
        ("h100:0", "E220"),
        (f"h100:{CARDS_MAX + 1}", "E220"),
        ("h100:8:8", "E220"),
        ("h100,,h20", "E220"),
        ("h1000x", "E101"),
        ("absent.toml", "E102"),
    ],
)
def test_bad_targets(text: str, code: str) -> None:
    with pytest.raises(WindtunnelError) as caught:
        parse_target(text)
    assert caught.value.code == code


def test_a_cluster_name_is_suggested() -> None:
    with pytest.raises(WindtunnelError) as caught:
        parse_target("kuae-1024")
    assert "did you mean `kuae-10240`?" in caught.value.hint


CLUSTER = Path(__file__).parents[3] / "examples" / "chips" / "my-cluster.toml"


def test_a_cluster_file() -> None:
    (cluster,) = parse_target(f"{CLUSTER}")
    assert (cluster.name, cluster.cards, cluster.nodes) == ("my-cluster", 32, 4)
    assert cluster.node.nic_bytes_per_s.value == 25e9
    assert cluster.fabric.kind is FabricKind.FAT_TREE
    assert parse_target(f"{CLUSTER}:16")[0].cards == 16


@pytest.mark.parametrize(
    ("old", "new", "code", "what"),
    [
        ("value = 2, unit", "value = 0.5, unit", "E106", "`fabric.oversubscription.value`"),
        ('kind = "fat tree"', 'kind = "torus"', "E104", "`fabric.kind`"),
        ("nics = 4", "nic = 4", "E104", "`node.nic` is not a known key"),
        ("cards = 32", "cards = 0", "E106", "`cards` is 0"),
        ('chips = ["h100-sxm"]', "chips = []", "E104", "`chips`"),
        ('unit = "s"', 'unit = "us"', "E105", "`fabric.hop_s.unit`"),
        ("host =", "hots =", "E104", "did you mean"),
    ],
)
def test_bad_cluster_files(tmp_path: Path, old: str, new: str, code: str, what: str) -> None:
    text = CLUSTER.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "c.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(WindtunnelError) as caught:
        parse_target(str(tmp_path / "c.toml"))
    assert caught.value.code == code
    assert what in caught.value.render()


def test_a_mesh_needs_its_links_per_pair(tmp_path: Path) -> None:
    text = CLUSTER.read_text(encoding="utf-8").replace("h100-sxm", "mtt-s5000")
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    with pytest.raises(WindtunnelError, match=r"`node\.links_per_pair` is missing"):
        parse_target(str(tmp_path / "c.toml"))


def test_a_pair_faster_than_its_links_is_refused(tmp_path: Path) -> None:
    import windtunnel.specs

    text = (Path(windtunnel.specs.__file__).parent / "clusters" / "kuae-10240.toml").read_text(
        encoding="utf-8"
    )
    assert "value = 33.5e9" in text
    (tmp_path / "c.toml").write_text(text.replace("value = 33.5e9", "value = 57e9"), encoding="utf-8")
    with pytest.raises(
        WindtunnelError, match=r"at most 5\.6e"
    ) as caught:  # 392 GB/s a card over seven others
        parse_target(str(tmp_path / "c.toml"))
    assert caught.value.code == "E106"


def test_what_if_a_card_s_links_were_slower_is_no_mistake() -> None:
    (cluster,) = parse_target("kuae-10240", overrides=("link_bytes_per_s=196e9",))
    pair = cluster.node.effective_pair_bytes_per_s
    assert pair is not None
    assert pair.value == pytest.approx(196e9 / 7)
