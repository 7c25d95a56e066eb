"""Errors of predictions: count, median, 90th percentile, bias, and how often the interval holds the measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.kernel_time import Floats


@dataclass(frozen=True, slots=True)
class Score:
    """Absolute relative errors. ``bias``: median of predicted ÷ measured − 1; ``coverage`` of 80 % intervals."""

    rows: int
    median: float
    p90: float
    time_median: float  # weighted by measured time
    time_p90: float
    bias: float
    coverage: float


def score(
    predicted_s: Floats, measured_s: Floats, low_s: Floats | None = None, high_s: Floats | None = None
) -> Score:
    """Compare predictions with measurements above zero."""
    error = np.abs(predicted_s / measured_s - 1.0)
    held = (
        np.nan
        if low_s is None or high_s is None
        else float(np.mean((low_s <= measured_s) & (measured_s <= high_s)))
    )
    return Score(
        len(error),
        float(np.median(error)),
        float(np.quantile(error, 0.9)),
        weighted_quantile(error, measured_s, 0.5),
        weighted_quantile(error, measured_s, 0.9),
        float(np.median(predicted_s / measured_s) - 1.0),
        held,
    )


def weighted_quantile(values: Floats, weights: Floats, level: float) -> float:
    """The value below which ``level`` of the weight lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, level * reached[-1])])
