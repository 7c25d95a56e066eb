"""Residuals of rows left out of a fit: beside two plain baselines, and as the intervals that a fit ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family
from windtunnel.validation.calibrate.fitting import Points, predict
from windtunnel.validation.kernel_scores import roofline
from windtunnel.validation.score import weighted_quantile

FEW_ROWS = 20
"""Below this a chip only moves peak fractions and fixed times, borrows the shape of everything else, and keeps an
interval at least this wide: ..."""
FEW_LOW, FEW_HIGH = 0.8, 1.25
"""... the narrowest that a handful of rows can justify."""
LOOKUP_ROWS = 1000
"""Rows that the nearest-shape baseline searches, and rows that it answers."""
REGIME_ENDS_S = (1e-5, 3e-5, 1e-4, 1e-3)
REGIME_ROWS = 60
"""Fewest residuals that an interval of its own is taken from."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Predicted and measured seconds of rows that the fit did not see, beside two plain baselines."""

    predicted_s: Floats
    measured_s: Floats
    nearest_s: Floats  # baseline: the measured time of the nearest shape that the fit saw
    roofline_s: Floats  # baseline: data sheet alone


def residuals(points: Points, seen: Sequence[Points], family: Family, values: dict[str, float]) -> Residuals:
    """What ``values`` predict for ``points``, having seen other rows."""
    parts = [roofline(part, points.chip) for part in points.parts]
    return Residuals(
        predict(points, family, values),
        points.seconds,
        nearest_seconds(points, seen),
        np.asarray(sum(parts, points.other_s)),
    )


def nearest_seconds(points: Points, seen: Sequence[Points]) -> Floats:
    """The time of the nearest shape in ``seen``, by the logarithms of all dimensions; NaN where nothing was seen."""
    if not seen:
        return np.full(len(points), np.nan)
    names = sorted(points.parts[0].dims)
    known = np.concatenate([_logarithms(item, names) for item in seen])
    times = np.concatenate([item.seconds for item in seen])
    if len(known) > LOOKUP_ROWS:
        chosen = np.random.default_rng(0).choice(len(known), LOOKUP_ROWS, replace=False)
        known, times = known[chosen], times[chosen]
    wanted = _logarithms(points, names)
    found = [int(np.abs(known - row).sum(axis=1).argmin()) for row in wanted[:LOOKUP_ROWS]]
    answer = np.full(len(points), np.nan)
    answer[: len(found)] = times[found]
    return answer


def _logarithms(points: Points, names: Sequence[str]) -> Floats:
    return np.log(np.stack([points.parts[0].dim(name) for name in names], axis=1) + 1.0)


def joined(found: Sequence[Residuals]) -> Residuals:
    """Several residuals as one."""
    names = ("predicted_s", "measured_s", "nearest_s", "roofline_s")
    return Residuals(*(np.concatenate([getattr(item, name) for item in found]) for name in names))


def regimes(left_out: Residuals, *, few: bool) -> list[list[float | None]]:
    """Intervals by predicted duration; neighbours with few rows are merged."""
    ratio = left_out.measured_s / left_out.predicted_s
    found: list[list[float | None]] = []
    start = 0.0
    for end in (*REGIME_ENDS_S, np.inf):
        inside = (left_out.predicted_s >= start) & (left_out.predicted_s < end)
        last = end == np.inf
        if inside.sum() < REGIME_ROWS and not last:
            continue
        if inside.sum() < min(REGIME_ROWS, len(ratio)) and last and found:
            found[-1][0] = None
            break
        rows = ratio[inside] if inside.any() else ratio
        low, high = (float(f"{value:.3g}") for value in np.quantile(rows, [0.1, 0.9]))
        if few:
            low, high = min(low, FEW_LOW), max(high, FEW_HIGH)
        found.append([None if last else end, min(low, 1.0), max(high, 1.0)])
        start = end
    return found


def median_error(baseline_s: Floats, measured_s: Floats) -> float | None:
    """Time-weighted median error of a baseline; None where it has no answer."""
    there = np.isfinite(baseline_s)
    if not there.any():
        return None
    error = np.abs(baseline_s[there] / measured_s[there] - 1.0)
    return float(f"{weighted_quantile(error, measured_s[there], 0.5):.3g}")
