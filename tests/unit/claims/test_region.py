"""Regions and what would have to be true."""

from __future__ import annotations

import pytest

from windtunnel.claims.prices import card
from windtunnel.claims.readings import implied_peak, readings
from windtunnel.claims.region import solve, table
from windtunnel.estimate import Estimate


def test_a_quantity_is_solved_for_on_either_side() -> None:
    short = solve("rate", "x", 10.0, better=100.0, worse=1.0, predict=lambda value: 2 * value, figure=50.0)
    assert not short.reached
    assert short.needed == pytest.approx(25.0, rel=0.01)
    enough = solve("rate", "x", 10.0, better=100.0, worse=1.0, predict=lambda value: 2 * value, figure=5.0)
    assert enough.reached
    assert enough.needed == pytest.approx(2.5, rel=0.01)


def test_what_nothing_reaches_is_said_so() -> None:
    never = solve("rate", "x", 10.0, better=100.0, worse=1.0, predict=lambda value: 1.0, figure=50.0)
    assert never.needed is None
    assert not never.reached
    assert never.end == 100.0
    nothing_fits = solve("rate", "x", 10.0, better=100.0, worse=1.0, predict=lambda value: None, figure=50.0)
    assert nothing_fits.needed is None
    assert not nothing_fits.reached


def test_at_most_is_reached_from_below() -> None:
    found = solve(
        "noise", "x", 10.0, better=0.1, worse=100.0, predict=lambda value: value, figure=2.0, at_most=True
    )
    assert not found.reached
    assert found.needed == pytest.approx(2.0, rel=0.02)


def test_a_table_keeps_what_does_not_fit() -> None:
    region = table(
        "t", "b", (("one", 1), ("two", 2)), (("a", 1), ("b", 2)),
        lambda row, column: None if row < column else Estimate.exact(row * column),
    )  # fmt: skip
    assert region.rows[0][1][1] is None
    assert len(region.cells) == 3


def test_an_implied_peak_is_the_measurement_over_what_others_get_of_theirs() -> None:
    measured = readings()["fp8-s5000"]
    found = implied_peak(measured, ("product-a100", "product-h100-fp8"))
    assert found.low == pytest.approx(measured.value / 0.8692)
    assert found.high == pytest.approx(measured.value / 0.7087)
    assert found.low < found.value < found.high


def test_parts_of_peaks_are_of_peaks_that_the_catalogue_has() -> None:
    for name, chip, dtype in (
        ("product-a100", "a100-80g", "bf16"),
        ("product-h100", "h100-sxm", "bf16"),
        ("product-h100-fp8", "h100-sxm", "fp8"),
        ("product-b200", "b200", "bf16"),
        ("product-b200-fp8", "b200", "fp8"),
        ("product-gb200-fp8", "gb200", "fp8"),
    ):
        reading = readings()[name]
        peak = card(chip).peak(dtype).value
        assert reading.of_peak == pytest.approx(reading.value * 1e12 / peak, rel=0.005)
