"""Fits find the parameters that made the data, and the same rows give the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.unit.cost.sample_chips import sample_chip
from windtunnel.program.work import Family
from windtunnel.validation.calibrate.fitting import Free, Points, fit_best, fit_values, predict
from windtunnel.validation.calibrate.kernel_entries import write_entries
from windtunnel.validation.calibrate.kernel_families import Stage
from windtunnel.validation.calibrate.kernel_fits import fit_stage
from windtunnel.validation.measured import MeasuredRows, batch, shape_groups

TRUE = {"move": 6.0, "dram": 0.9, "floor_clocks": 7000.0, "vector": 0.5}
FREE = (Free("move", 10.0, 0.1, 200.0), Free("floor_clocks", 4000.0, 500.0, 4e4))
FIXED = {"dram": 0.9, "vector": 0.5}


def points(noise: float = 0.0) -> Points:
    elements = np.geomspace(1e3, 1e9, 80)
    part = batch(
        Family.POINTWISE, "bf16", {"elements": elements}, bytes_read=2 * elements, bytes_written=2 * elements
    )
    bare = Points(sample_chip(), (part,), np.zeros(80), np.ones(80), shape_groups(elements))
    scatter = np.exp(noise * np.random.default_rng(3).standard_normal(80))
    return Points(
        bare.chip, bare.parts, bare.other_s, predict(bare, Family.POINTWISE, TRUE) * scatter, bare.shape_group
    )


def test_a_fit_finds_the_parameters_that_made_the_data() -> None:
    found = fit_values([points(0.03)], Family.POINTWISE, FREE, FIXED)
    assert abs(found["move"] / TRUE["move"] - 1) < 0.1
    assert abs(found["floor_clocks"] / TRUE["floor_clocks"] - 1) < 0.05


def test_a_few_wild_rows_do_not_carry_a_fit_away() -> None:
    clean = points(0.02)
    seconds = clean.seconds.copy()
    seconds[::16] *= 30.0
    wild = Points(clean.chip, clean.parts, clean.other_s, seconds, clean.shape_group)
    found = fit_values([wild], Family.POINTWISE, FREE, FIXED)
    assert abs(found["floor_clocks"] / TRUE["floor_clocks"] - 1) < 0.15


def test_a_choice_is_made_where_it_explains_clearly_more() -> None:
    data = points(0.03)
    wrong, right = ("vector", 0.001), ("vector", 0.5)  # nothing but bytes counts here
    found = fit_best([data], Family.POINTWISE, FREE, {"dram": 0.9}, (right, ("vector", 0.6)))
    assert found["vector"] == 0.5
    heavy = replace(
        data, parts=tuple(replace(part, vector_flops=part.bytes_read * 50) for part in data.parts)
    )
    slow = replace(heavy, seconds=predict(heavy, Family.POINTWISE, {**TRUE, "vector": 0.01}))
    found = fit_best([slow], Family.POINTWISE, FREE, {"dram": 0.9}, (right, ("vector", 0.01), wrong))
    assert found["vector"] == 0.01


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    data = points(0.05)
    rows = MeasuredRows("table", "sample", "torch", np.arange(80), data.parts, data.seconds, data.shape_group)
    stage = Stage("pointwise", (Family.POINTWISE,), ("table",), FREE, ("elements",), tuple(FIXED.items()))
    for name in ("first.json", "second.json"):
        write_entries(tmp_path / name, *fit_stage(stage, [rows], {"sample": sample_chip()}))
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()


def test_intervals_hold_about_eight_in_ten_of_rows_left_out() -> None:
    data = points(0.2)
    rows = MeasuredRows("table", "sample", "torch", np.arange(80), data.parts, data.seconds, data.shape_group)
    stage = Stage("pointwise", (Family.POINTWISE,), ("table",), FREE, ("elements",), tuple(FIXED.items()))
    own = next(
        entry for entry in fit_stage(stage, [rows], {"sample": sample_chip()})[0] if entry["chip"] == "sample"
    )
    (_, low, high), *_ = own["regimes"]  # type: ignore[misc]
    assert 0.6 < low < 0.95
    assert 1.05 < high < 1.6
