"""Entries of parameter files: a fit with its range, errors and intervals, as JSON; equal fits give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from windtunnel.cost.fit import POOLED
from windtunnel.validation.calibrate.fitting import Points
from windtunnel.validation.calibrate.kernel_families import Stage
from windtunnel.validation.calibrate.kernel_points import KernelPath
from windtunnel.validation.calibrate.kernel_residuals import FEW_ROWS, Residuals, median_error, regimes
from windtunnel.validation.calibrate.kernel_transfer import Table
from windtunnel.validation.score import weighted_quantile

BY_HAND_INTERVAL = (0.55, 2.0)
"""Factors around a time that rests on usual fractions alone."""

Entry = dict[str, object]


def write_entries(path: Path, entries: Sequence[Entry], transfer: Table) -> None:
    """Write a parameter file; equal fits give equal bytes."""
    text = json.dumps({"fits": list(entries), "transfer": transfer}, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def entry(
    stage: Stage,
    chip: str,
    path: KernelPath,
    values: Mapping[str, float],
    points: Sequence[Points],
    left_out: Residuals,
) -> Entry:
    """One fit as it is kept."""
    error = np.abs(left_out.predicted_s / left_out.measured_s - 1.0)
    return {
        "chip": chip,
        "library": path.library,
        "precision": path.precision,
        "variant": path.variant,
        "values": {name: float(f"{value:.4g}") for name, value in values.items()},
        "ranges": {name: _range(name, points) for name in stage.dims if name != "bytes"},
        "regimes": regimes(left_out, few=sum(map(len, points)) < FEW_ROWS),
        "rows": sum(len(item) for item in points),
        "error_median": float(f"{weighted_quantile(error, left_out.measured_s, 0.5):.3g}"),
        "error_p90": float(f"{weighted_quantile(error, left_out.measured_s, 0.9):.3g}"),
        "roofline_median": median_error(left_out.roofline_s, left_out.measured_s),
        "nearest_median": median_error(left_out.nearest_s, left_out.measured_s),
        "source": ", ".join(stage.tables),
        "clock_hz": float(f"{np.exp(np.mean([np.log(item.chip.clock_hz.value) for item in points])):.5g}"),
    }


def by_hand(stage: Stage) -> Entry:
    """The fit of plain kernels that nobody measured: usual fractions, with a wide interval."""
    return {
        "chip": POOLED,
        "library": "",
        "precision": "",
        "variant": "",
        "values": dict(stage.by_hand),
        "ranges": {},
        "regimes": [[None, *BY_HAND_INTERVAL]],
        "rows": 0,
        "source": "uncalibrated: fractions of data sheet peaks usual for this family",
    }


def _range(name: str, points: Sequence[Points]) -> list[float]:
    columns = [part.dim(name) for item in points for part in item.parts]
    return [float(min(column.min() for column in columns)), float(max(column.max() for column in columns))]
