"""The least squares that every network fit shares, and the residuals that become intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from windtunnel.network.parameters import Interval
from windtunnel.validation.calibrate.network_points import Point

Vector = npt.NDArray[np.float64]
NO_INTERVAL = Interval(1, 1, 1, 1)


def fit(
    start: Sequence[float], predict: Callable[[Vector], Vector], measured: Vector, weights: Vector
) -> Vector:
    """Parameters that minimise weighted log ratios, each within a factor of 8 of its start.

    Starts are physical (microseconds a hop, shares of a link); a share of a link stays below 1.
    """
    first = np.asarray(start, dtype=np.float64)
    top = np.where((first > 0.01) & (first < 1), 1.0, first * 8)

    def residual(logs: Vector) -> Vector:
        return np.asarray(weights * np.log(predict(np.exp(logs)) / measured))

    solution = least_squares(
        residual,
        np.log(first),
        bounds=(np.log(first / 8), np.log(top)),
        loss="soft_l1",
        f_scale=0.1,
        diff_step=1e-3,
        max_nfev=80,
    )
    return np.asarray(np.exp(solution.x))


def quantiles(predicted: Vector, points: Sequence[Point]) -> Interval:
    """Measured over predicted at 10 % and 90 %, below and above 1 MiB; at least 2 % either way."""
    ratio = np.array([point.seconds for point in points]) / predicted
    large = np.array([point.bytes >= 1 << 20 for point in points])
    small = ratio[~large] if (~large).any() else ratio
    big = ratio[large] if large.any() else ratio
    values = [float(np.quantile(part, q)) for part in (small, big) for q in (0.1, 0.9)]
    return Interval(min(values[0], 0.98), max(values[1], 1.02), min(values[2], 0.98), max(values[3], 1.02))


def weights_of(points: Sequence[Point]) -> Vector:
    """Large messages count double: they carry the time."""
    return np.array([1.5 if point.bytes >= 1 << 20 else 0.7 for point in points])
