"""Intervals of borrowed fits: as wide as leaving kernel paths out shows that they must be."""

from __future__ import annotations

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.validation.calibrate.kernel_transfer import PATHS_TO_JUDGE, _regimes, _widening


def paths(offsets: list[float], scatter: float) -> list[tuple[Floats, Floats]]:
    """Kernel paths whose predictions are off by ``offsets``, in logarithms, with a scatter of rows within each."""
    draw = np.random.default_rng(3)
    return [(np.full(200, 1e-3), np.exp(offset + scatter * draw.normal(size=200))) for offset in offsets]


def coverage(table: list[list[float | None]], ratio: Floats) -> float:
    _, low, high = table[-1]
    assert low is not None
    assert high is not None
    return float(np.mean((ratio >= low) & (ratio <= high)))


def test_a_path_that_was_left_out_is_held_four_times_in_five() -> None:
    offsets = np.random.default_rng(1).normal(size=24) * 0.3
    every = paths(offsets.tolist(), 0.15)
    held = [coverage(_regimes([p for p in every if p is not out]), out[1]) for out in every]
    assert 0.74 <= np.mean(held) <= 0.88


def test_paths_that_agree_need_no_widening_and_few_are_widened() -> None:
    same = paths([0.0] * 12, 0.3)
    assert _widening(same) <= 1.1
    assert _widening(same[: PATHS_TO_JUDGE - 1]) > 1.2
