"""Fit the engine's constants to OpenMM's published rates: ``python -m windtunnel.workloads.md.fit_engine``.

Twelve rows (four systems on A100, RTX 4080 and L40S) and five constants, each with a prior from what is known of
GPUs. Rows of other chips in ``openmm_benchmarks.csv`` are held out: they are printed, not fitted. The spread is
that of chips left out of the fit, one after another.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from windtunnel.specs.catalogue import chip
from windtunnel.workloads.md.engine_kernels import solvated, step_kernels
from windtunnel.workloads.science.engine import EngineParameters, engine_step

STEP_NS = 4e-6  # the benchmarks take 4 fs steps
ROW_ERROR = 0.07  # what one row's logarithm is trusted to
CONSUMER_BOOST = 1.085
PRIOR = {
    "trip_cycles": (450.0, 0.4),
    "gap_cycles": (3500.0, 0.7),
    "issue": (0.5, 0.4),
    "cache": (0.6, 0.4),
    "memory": (0.8, 0.1),
}
"""Middle and standard deviation of the logarithm. Cycles of an access: 262 to 542 from cache and memory on A100, H100
and RTX 4090 (Luo et al., arXiv 2402.13499); a gap of 1 to 3 µs; bandwidths as streaming kernels reach them."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One published rate."""

    system: str
    atoms: int
    solute: float
    chip: str
    ns_per_day: float
    fitted: bool


def rows() -> list[Row]:
    """The published rates that ship with the package."""
    text = resources.files("windtunnel.workloads.md").joinpath("openmm_benchmarks.csv").read_text("utf-8")
    return [
        Row(
            entry["system"],
            int(entry["atoms"]),
            int(entry["solute_atoms"]) / int(entry["atoms"]),
            entry["chip"],
            float(entry["ns_per_day"]),
            entry["use"] == "fit",
        )
        for entry in csv.DictReader(text.splitlines())
    ]


def log_error(row: Row, constants: EngineParameters) -> float:
    """ln(predicted ÷ measured rate)."""
    step = engine_step(step_kernels(solvated(row.atoms, solute=row.solute)), chip(row.chip), constants)
    return math.log(STEP_NS * 86400.0 / step.seconds.value / row.ns_per_day)


def fit(given: Sequence[Row]) -> EngineParameters:
    """Least squares in logarithms with the priors, by Gauss-Newton."""
    middle = np.log([value for value, _ in PRIOR.values()])
    width = np.array([deviation for _, deviation in PRIOR.values()])

    def residuals(x: Vector) -> Vector:
        errors = [log_error(row, _constants(x)) / ROW_ERROR for row in given]
        return np.concatenate([np.array(errors), (x - middle) / width])

    x = middle
    for _ in range(40):
        r = residuals(x)
        jacobian = np.stack([(residuals(x + h) - r) / 1e-5 for h in 1e-5 * np.eye(len(x))], axis=1)
        step = np.linalg.lstsq(jacobian, -r, rcond=None)[0]
        x = x + step
        if float(np.abs(step).max()) < 1e-9:
            break
    return _constants(x)


def spread(given: Sequence[Row]) -> float:
    """Root mean square of ln(predicted ÷ measured) on each chip when the others alone are fitted."""
    errors = []
    for left_out in sorted({row.chip for row in given}):
        constants = fit([row for row in given if row.chip != left_out])
        errors += [log_error(row, constants) for row in given if row.chip == left_out]
    return float(np.sqrt(np.mean(np.square(errors))))


def _constants(x: Vector, deviation: float = 0.0) -> EngineParameters:
    values = dict(zip(PRIOR, np.exp(x).tolist()))
    return EngineParameters(**values, consumer_boost=CONSUMER_BOOST, spread=deviation)


HEADER = """# Constants of workloads/science/engine.py. Written by `python -m windtunnel.workloads.md.fit_engine`.
#
# Fitted to: OpenMM 8.4 benchmarks, openmm.org, data/benchmarks.json of July 2026: DHFR, ApoA1, Cellulose and STMV with
# PME on A100, RTX 4080 and L40S (workloads/md/openmm_benchmarks.csv). H100 is held out. Which A100 and H100 were used
# is not stated there; the SXM cards of 80 GB are taken.
# consumer_boost is not fitted: an RTX 4090 advertised at 2.520 GHz runs kernels at 2.655 GHz (NVIDIA/nvbench pull
# request 207) to 2.82 GHz (noonghunna/club-3090 issue 697), 1.05 to 1.12 times as fast; the middle is taken.
"""


def main() -> None:
    """Fit, print errors by row, and write the parameter file."""
    every = rows()
    fitted = [row for row in every if row.fitted]
    deviation = spread(fitted)
    found = fit(fitted)
    for row in every:
        mark = "fitted" if row.fitted else "held out"
        print(f"{row.chip:10} {row.system:10} {math.exp(log_error(row, found)) - 1:+7.1%}  {mark}")
    print(f"spread of chips left out: {deviation:.3f}")
    names = (*PRIOR, "consumer_boost")
    lines = [f"{name} = {getattr(found, name):.6g}" for name in names]
    path = Path(__file__).parents[1] / "science" / "parameters" / "engine.toml"
    text = "\n".join(["[values]", *lines, f"spread = {deviation:.4g}", ""])
    path.write_text(HEADER + "\n" + text, encoding="utf-8")


if __name__ == "__main__":
    main()
