"""Fit the constants of long training runs (``timeline/sustained.py``) on the calibration tables of training steps.

    python -m windtunnel.validation.calibrate.training MEASUREMENTS/calibration OUT.toml

Few constants for many tables: how voltage falls with the clock, watts per PFLOP/s by architecture, host load by kind
of framework.
Every few rows of each table are used, so that no table outweighs the others. Needs scipy. Run it again when
kernel costs change: what is fitted here is what kernels alone do not explain.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from windtunnel.errors import WindtunnelError
from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.recipes.training import TrainingRecipe, training_step
from windtunnel.timeline.sustained import Sustained
from windtunnel.units import TERA
from windtunnel.validation.calibrate.network_points import rows
from windtunnel.validation.flop_conventions import published_flops
from windtunnel.validation.model_names import architecture_named
from windtunnel.validation.reasons import Incomplete
from windtunnel.validation.training_place import cluster_for
from windtunnel.validation.training_rows import ONE_SEQUENCE, TrainingCase, training_case, vtrain_case

EVERY = {
    "train_dgxc_benchmarking.csv": 4,
    "train_llm_foundry.csv": 5,
    "train_torchtitan.csv": 1,
    "train_simumax_a100_pcie.csv": 2,
    "train_simumax_b200.csv": 2,
    "train_megatron_bridge.csv": 2,
    "train_megatron_lm.csv": 2,
    "vtrain_a100_measured.csv": 16,
}
"""Rows of each table that the fit uses: every n-th."""
ARCHITECTURES = ("Ampere", "Hopper", "Blackwell")
HOSTS = ("eager-2021", "fused")
"""Host loads that measured steps determine; those of compiled and eager models are what is written down."""
INTERVAL_SIGMAS = 1.2816
"""Half-width of an 80 % interval of a normal distribution."""
MAD_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
MICRO_BATCHES_MAX = 300
"""Longer pipelines take seconds each and say nothing that shorter ones do not."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measured step, ready to be predicted under other constants."""

    table: str
    seconds: float
    recipe: TrainingRecipe
    predictor: TrainingPredictor


def steps(folder: Path) -> Iterator[Step]:
    """The rows that the fit uses: those that state their micro-batch, on which everything else hangs."""
    predictors: dict[tuple[str, int], TrainingPredictor] = {}
    for name, every in EVERY.items():
        for number, row in enumerate(rows(folder / name)):
            if number % every:
                continue
            try:
                case = (
                    vtrain_case(row) if name.startswith("vtrain") else training_case(row, architecture_named)
                )
                if ONE_SEQUENCE in case.assumed:
                    continue
                seconds = measured_s(row, case)
                recipe = training_step(case.model, case.layout)
            except (Incomplete, WindtunnelError):
                continue
            if case.layout.micro_batches > MICRO_BATCHES_MAX:
                continue
            key = (case.chip, case.layout.cards)
            if key not in predictors:
                cluster = cluster_for(*key)
                predictors[key] = TrainingPredictor(cluster.chip, NetworkModel(cluster))
            yield Step(name, seconds, recipe, predictors[key])


def measured_s(row: dict[str, str], case: TrainingCase) -> float:
    """Step time of a row. Raises Incomplete where it has none."""
    if row.get("iteration_ms"):
        return float(row["iteration_ms"]) / 1e3
    if row.get("step_seconds"):
        return float(row["step_seconds"])
    if row.get("tokens_per_s_per_gpu"):
        return case.layout.step_tokens / float(row["tokens_per_s_per_gpu"]) / case.layout.cards
    if row.get("model_tflops_per_gpu"):
        flops = published_flops(case.model, case.layout)
        return flops / TERA / case.layout.cards / float(row["model_tflops_per_gpu"])
    raise Incomplete("no step time")


def _constants(x: npt.NDArray[np.float64]) -> Sustained:
    watts = tuple(zip(ARCHITECTURES, (float(v) for v in x[1:4]), strict=True))
    hosts = tuple(zip(HOSTS, (float(v) for v in x[4:6]), strict=True))
    arrivals = tuple(zip(HOSTS, (float(v) for v in x[6:8]), strict=True))
    between = tuple(zip(HOSTS, (float(v) for v in x[8:]), strict=True))
    return Sustained(float(x[0]), watts, hosts, arrivals, between, 1.0, 1.0)


def fit(points: Sequence[Step]) -> Sustained:
    """Least squares on log ratios with a soft loss; their spread becomes the interval (``spread``)."""
    measured = np.array([point.seconds for point in points])
    known: dict[tuple[int, tuple[float, ...]], float] = {}

    def seconds(number: int, constants: Sustained) -> float:
        point = points[number]
        key = number, constants.felt_by(point.predictor.chip, point.recipe.layout.host)
        if key not in known:
            predictor = point.predictor.with_constants(constants)
            known[key] = predictor.predict(point.recipe).step_time_s.value
        return known[key]

    def ratios(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        constants = _constants(np.exp(logs))
        predicted = np.array([seconds(number, constants) for number in range(len(points))])
        return np.asarray(np.log(predicted / measured))

    start = np.log([0.2, 1400.0, 780.0, 500.0, 8.0, 8.0, 7e-5, 7e-5, 5e-4, 1e-4])
    reach = np.log([5.0, 1.6, 1.6, 1.6, 4.0, 2.4, 10.0, 10.0, 10.0, 10.0])
    low, high = start - reach, start + reach
    solution = least_squares(
        ratios, start, bounds=(low, high), loss="soft_l1", f_scale=0.05, diff_step=0.02, max_nfev=8
    )
    constants = _constants(np.exp(solution.x))
    width = INTERVAL_SIGMAS * spread(ratios(solution.x), [point.table for point in points])
    return replace(constants, low=float(np.exp(-width)), high=float(np.exp(width)))


def spread(log_ratios: npt.NDArray[np.float64], tables: Sequence[str]) -> float:
    """Standard deviation of the error on a framework and system that the fit has not seen.

    The variance within a table, and that of the tables' medians around each other with their own uncertainty; by
    median absolute deviations, so that one odd row does not decide.
    """
    groups = [log_ratios[[name == table for name in tables]] for table in sorted(set(tables))]
    medians = np.array([np.median(group) for group in groups])
    within = [
        MAD_SIGMA * float(np.median(np.abs(group - np.median(group)))) for group in groups if len(group) > 2
    ]
    between = float(np.var(medians, ddof=1)) * (1.0 + 1.0 / len(medians)) if len(medians) > 1 else 0.0
    return float(np.sqrt(between + np.mean(np.square(within or [0.0]))))


def table_text(constants: Sustained, points: Sequence[Step]) -> str:
    """The TOML table that the package ships."""
    tables = ", ".join(sorted({point.table for point in points}))
    lines = [
        "# Fitted by `python -m windtunnel.validation.calibrate.training`; do not edit by hand.",
        f"# {len(points)} rows of {tables}.",
        "# interval: measured over predicted step time on a system not seen in the fit, 80 %.",
        f"voltage_slope = {constants.voltage_slope:.4g}",
        "\n[watts_per_pflops]",
        *(f"{name} = {value:.4g}" for name, value in constants.watts_per_pflops),
        "\n[host_factors]",
        *(f"{name} = {value:.4g}" for name, value in constants.host_factors),
        "\n[arrival_us]",
        *(f"{name} = {value * 1e6:.4g}" for name, value in constants.arrivals_s),
        "\n[between_us]",
        *(f"{name} = {value * 1e6:.4g}" for name, value in constants.between_s),
        f"\n[interval]\nlow = {constants.low:.4g}\nhigh = {constants.high:.4g}\n",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Fit and write the table."""
    points = list(steps(Path(arguments[0])))
    Path(arguments[1]).write_text(table_text(fit(points), points), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
