"""Robust least squares of a family model on measured rows: few physical parameters, in logarithms.

    minimise  Σ w soft(ln(predicted ÷ measured) ÷ NOISE) + Σ (ln(parameter ÷ start) ÷ PRIOR)²

``w`` grows slowly with the measured time, since long kernels decide steps and short ones are many. The prior
keeps parameters that the rows say nothing about at their start; it grows with the rows, so that fits over many chips
hold on to it as fits of one do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit, Regime
from windtunnel.cost.kernel_time import Floats
from windtunnel.cost.model import MODELS
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip

NOISE = 0.1  # logarithmic scatter of a good kernel benchmark
PRIOR = 0.5  # logarithmic width of a parameter's prior
TIME_WEIGHT = 0.2  # exponent of the measured time in the weight
ROWS_MAX = 800  # rows of one chip that a fit looks at, drawn with a fixed seed
EVALUATIONS_MAX = 30
CLEARLY_LESS = 0.95  # of what is left to explain: below it a choice other than the usual one is made

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Free:
    """One parameter that a fit may move, between bounds, from a start."""

    name: str
    start: float
    low: float
    high: float
    width: float = PRIOR  # logarithmic width of the prior


@dataclass(frozen=True, slots=True)
class Points:
    """Rows of one chip: the parts that the family under fit prices, and the seconds of everything else."""

    chip: Chip
    parts: tuple[Batch, ...]
    other_s: Floats
    seconds: Floats
    shape_group: np.ndarray[tuple[int], np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.seconds)

    def where(self, mask: Mask) -> Points:
        """The rows that ``mask`` selects."""
        return Points(
            self.chip,
            tuple(part.where(mask) for part in self.parts),
            self.other_s[mask],
            self.seconds[mask],
            self.shape_group[mask],
        )


def predict(points: Points, family: Family, values: dict[str, float]) -> Floats:
    """Seconds of every row under ``values``."""
    fit = Fit(family=str(family), chip="", values=tuple(values.items()), regimes=(Regime(np.inf, 1.0, 1.0),))
    model = MODELS[family][0]
    return np.asarray(sum((model(part, points.chip, fit).seconds for part in points.parts), points.other_s))


def fit_best(
    chips: Sequence[Points],
    family: Family,
    free: Sequence[Free],
    fixed: dict[str, float],
    choices: Sequence[tuple[str, float]],
    begins: Sequence[Mapping[str, float]] = (),
) -> dict[str, float]:
    """``fit_values`` under each of the choices, values of one parameter that is no quantity.

    The first stands unless another leaves clearly less to explain. ``begins``: as in ``solved_from``.
    """
    if not choices:
        return solved_from(chips, family, free, fixed, begins)[0]
    usual, *others = [
        solved_from(chips, family, free, {**fixed, name: value}, begins) for name, value in choices
    ]
    best = min(others, key=lambda item: item[1], default=usual)
    return best[0] if best[1] < CLEARLY_LESS * usual[1] else usual[0]


def fit_values(
    chips: Sequence[Points], family: Family, free: Sequence[Free], fixed: dict[str, float]
) -> dict[str, float]:
    """The parameters that explain the rows of all ``chips`` together best; every chip weighs the same."""
    return solved_from(chips, family, free, fixed)[0]


def solved_from(
    chips: Sequence[Points],
    family: Family,
    free: Sequence[Free],
    fixed: dict[str, float],
    begins: Sequence[Mapping[str, float]] = (),
) -> tuple[dict[str, float], float]:
    """The best parameters and what is left to explain, whichever place the search begins at leaves least.

    ``begins``: further places, as parameters that differ from their start; where a kernel is far from the textbook,
    the search ends in the nearest valley.
    """
    found = [_solved(chips, family, free, fixed, begin) for begin in ({}, *begins)]
    return min(found, key=lambda item: item[1])


def _solved(
    chips: Sequence[Points],
    family: Family,
    free: Sequence[Free],
    fixed: dict[str, float],
    begin: Mapping[str, float],
) -> tuple[dict[str, float], float]:
    sample = [thinned(points) for points in chips]
    weights = [np.sqrt(_weights(points)) for points in sample]
    start = np.log([item.start for item in free])
    widths = np.array([item.width for item in free])
    seen = sum(len(points) for points in sample)

    def residuals(x: Floats) -> Floats:
        values = {**fixed, **dict(zip((item.name for item in free), np.exp(x).tolist()))}
        errors = [
            weight * _soft(np.log(predict(points, family, values) / points.seconds) / NOISE)
            for points, weight in zip(sample, weights)
        ]
        return np.concatenate([*errors, (x - start) / widths * np.sqrt(1.0 + seen / 500.0)])

    bounds = (np.log([item.low for item in free]), np.log([item.high for item in free]))
    first = np.log([begin.get(item.name, item.start) for item in free])
    answer = least_squares(
        residuals, first, bounds=bounds, diff_step=0.01, max_nfev=EVALUATIONS_MAX, x_scale=0.3
    )
    values = {**fixed, **{item.name: float(value) for item, value in zip(free, np.exp(answer.x))}}
    return values, float(answer.cost)


def _soft(error: Floats) -> Floats:
    """Quadratic near zero, linear in the square root beyond: outliers pull, but weakly."""
    return np.asarray(np.sign(error) * np.sqrt(2.0 * (np.sqrt(1.0 + error**2) - 1.0)))


def _weights(points: Points) -> Floats:
    weight = points.seconds**TIME_WEIGHT
    return np.asarray(weight / weight.mean())


def thinned(points: Points) -> Points:
    """At most ``ROWS_MAX`` of the rows, drawn with a fixed seed."""
    if len(points) <= ROWS_MAX:
        return points
    chosen = np.zeros(len(points), dtype=np.bool_)
    chosen[np.random.default_rng(0).choice(len(points), ROWS_MAX, replace=False)] = True
    return points.where(chosen)
