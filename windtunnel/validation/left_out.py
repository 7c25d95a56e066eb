"""Errors of the kernel fits on whole shape groups that were left out of them, as calibration found and kept them.

A shape group is the weights of a product, the heads of an attention, the experts of a layer: three in ten were left
out of a fit, or each in turn where there are few. Errors are weighted by measured time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from windtunnel.cost.fit_files import load
from windtunnel.cost.model import MODELS

CHIPS = ("a100-80g", "h100-sxm")
"""Chips of which most kernels were measured."""
ROWS_MIN = 60
TARGET_MEDIAN, TARGET_P90 = 0.06, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """One fit: time-weighted errors on shapes left out, and of the two plain baselines on the same rows."""

    family: str
    library: str
    path: str
    chip: str
    rows: int
    median: float
    p90: float
    nearest_median: float | None
    baseline_median: float | None

    @property
    def met(self) -> bool:
        """Whether it is within the targets and better than both baselines."""
        plain = [value for value in (self.nearest_median, self.baseline_median) if value is not None]
        return (
            self.median <= TARGET_MEDIAN and self.p90 <= TARGET_P90 and self.median < min(plain, default=1.0)
        )


def left_out(chips: tuple[str, ...] = CHIPS) -> tuple[LeftOut, ...]:
    """All fits of the chips with rows enough, worst median first."""
    files = dict.fromkeys(file for _, file, _ in MODELS.values())
    found = [
        LeftOut(
            family=fit.family,
            library=fit.library,
            path="/".join(part for part in (fit.precision, fit.variant) if part),
            chip=fit.chip,
            rows=fit.rows,
            median=fit.error_median,
            p90=fit.error_p90,
            nearest_median=fit.nearest_median,
            baseline_median=fit.roofline_median,
        )
        for file in files
        for fit in load(file)
        if fit.chip in chips and fit.rows >= ROWS_MIN and math.isfinite(fit.error_median)
    ]
    return tuple(
        sorted(found, key=lambda item: (-item.median, item.family, item.library, item.path, item.chip))
    )


def share_met(fits: tuple[LeftOut, ...]) -> float:
    """Share of the rows whose fit is within the targets."""
    rows = sum(item.rows for item in fits)
    return sum(item.rows for item in fits if item.met) / rows if rows else math.nan
