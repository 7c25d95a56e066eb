"""Curves over size: monotone, bounded by physics, and honest about what they rest on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windtunnel.cli.main import main
from windtunnel.specs.catalogue import chip
from windtunnel.specs.targets import cluster_of
from windtunnel.workloads.md.predict import (
    SIZES,
    SPONGE_CLAIM,
    decomposed,
    decomposed_curve,
    fused_curve,
    sponge_ratio,
)


@pytest.mark.parametrize("name", ["mtt-s5000", "h100-sxm", "b200"])
def test_larger_systems_take_longer(name: str) -> None:
    rates = [point.rate.value for point in fused_curve(chip(name)).points]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] < 2 * rates[1]  # small systems wait for latency, not for work
    assert rates[-2] / rates[-1] > 0.8 * SIZES[-1] / SIZES[-2]


def test_replicas_fill_a_card_that_a_small_system_does_not() -> None:
    one, eight = (fused_curve(chip("h100"), (5_000, 1_000_000), replicas=r).points for r in (1, 8))
    assert eight[0].rate.value > 2.0 * one[0].rate.value
    assert eight[1].rate.value == pytest.approx(one[1].rate.value, rel=0.1)


def test_more_cards_help_large_systems_and_hurt_small_ones() -> None:
    def gain(atoms: int) -> float:
        return (
            decomposed(cluster_of("s5000", 8), atoms).rate.value
            / decomposed(cluster_of("s5000", 1), atoms).rate.value
        )

    assert gain(10_000) < 1.0 < gain(1_000_000)
    assert decomposed(cluster_of("s5000", 1), 50_000).halo.value == 0.0
    eight = decomposed(cluster_of("s5000", 8), 50_000)
    assert eight.halo.value > 0
    assert eight.transposes.value > 0
    curve = decomposed_curve(cluster_of("s5000", 8), (50_000,))
    assert curve.points[0].rate.value == eight.rate.value


def test_a_better_network_decomposes_better() -> None:
    mesh, switch = (decomposed(cluster_of(name, 8), 100_000) for name in ("s5000", "h100"))
    assert mesh.halo.value > switch.halo.value  # two links a pair against a switch


def test_the_claim_is_compared_and_not_met_by_construction() -> None:
    answer = sponge_ratio(chip("s5000"), chip("h100"))
    for point, gap in zip(answer.points, answer.unexplained, strict=True):
        assert point.rate.value * gap.value == pytest.approx(SPONGE_CLAIM)
        assert gap.low <= gap.value <= gap.high
    same = sponge_ratio(chip("h100"), chip("h100"))
    assert all(point.rate.value == pytest.approx(1.0) for point in same.points)
    wide = chip("s5000", ["multiprocessors=400"])
    assert sponge_ratio(wide, chip("h100")).points[-1].rate.value > 1.5 * answer.points[-1].rate.value


def test_the_command_prints_a_curve(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["science", "md", "--atoms", "23558", "1067095"]) == 0
    printed = capsys.readouterr().out
    assert "1,067,095" in printed
    assert "1.7 × H100" in printed
    assert "mtt-s5000 is assumed in part" in printed


def test_json_holds_curves_ratios_and_domains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["science", "md", "--json", "--on", "mtt-s5000:8,h100-sxm", "--atoms", "100000"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "windtunnel.science/1"
    assert [curve["chip"] for curve in data["curves"]] == ["mtt-s5000", "h100-sxm"]
    (ratio,) = data["ratios"][0]["points"]
    assert ratio["rate"]["low"] < ratio["rate"]["value"] < ratio["rate"]["high"]
    assert data["decomposed"][0]["cards"] == 8
    assert "clock_hz" in data["assumed"]["mtt-s5000"]


def test_eager_is_slower_than_fused_and_bound_differently(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert main(["science", "md", "--json", "--on", "h100-sxm", "--eager", "--atoms", "6000"]) == 0
    fused, eager = json.loads(capsys.readouterr().out)["curves"]
    assert (fused["execution"], eager["execution"]) == ("fused", "eager")
    assert fused["points"][0]["rate"]["value"] > 5 * eager["points"][0]["rate"]["value"]


@pytest.mark.parametrize(
    "line", [["--atoms", "5"], ["--step-fs", "0"], ["--replicas", "0"], ["--atoms", "1e12"]]
)
def test_sizes_that_make_no_sense(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["science", "md", *line]) == 2
    assert "[E948]" in capsys.readouterr().err


def test_the_page_draws_curves_with_the_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "md.html"
    assert main(["science", "md", "--report", str(path), "--atoms", "23558", "92224", "1067095"]) == 0
    page = path.read_text(encoding="utf-8")
    assert page.count('class="curve"') == 2 + 2  # two chips; the ratio and the claimed level
    assert "claimed: 1.7" in page
    assert "Assumed of mtt-s5000" in page
    assert "http" not in page.split("</style>")[1].replace("http://www.w3.org", "")
    assert main(["science", "md", "--report", str(tmp_path / "none" / "md.html")]) == 2
    assert "[E925]" in capsys.readouterr().err
