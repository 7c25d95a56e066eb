"""Parameters of family models: read from ``parameters/*.json``, chosen for a chip, a library and a path.

Each file holds the fits of one family. A fit carries the physical parameters (fractions of data sheet
quantities, and seconds), the range of shapes they were fitted on, their source, their error on shapes left
out of the fit, and the interval of their residuals. ``windtunnel calibrate`` writes the files.

Choice for a chip: its own fit; else that of the nearest relative; else the fit pooled over all chips
(``chip = ""``). Inside a chip: the library asked for, else the first of ``LIBRARIES``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.kernel_time import Floats
from windtunnel.estimate import Source
from windtunnel.specs.schema import Chip

LIBRARIES = ("torch", "trtllm", "sglang", "vllm", "")
"""Order in which libraries stand in for each other when none is asked for: what PyTorch calls comes first."""

POOLED = ""
"""The chip name of fits over all chips."""


@dataclass(frozen=True, slots=True)
class Regime:
    """80 % interval of kernels up to ``upper_s`` seconds, as factors on the prediction."""

    upper_s: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One set of parameters.

    Attributes:
        values: parameter name → value; which names exist is the family's business.
        ranges: dimension → (smallest, largest) value seen while fitting.
        regimes: intervals by predicted duration, ascending; the last covers everything above.
        error_median, error_p90: time-weighted, on shape groups left out; NaN where nothing was left out.
    """

    family: str
    chip: str
    library: str = ""
    precision: str = ""
    variant: str = ""
    values: tuple[tuple[str, float], ...]
    ranges: tuple[tuple[str, float, float], ...] = ()
    regimes: tuple[Regime, ...]
    rows: int = 0
    error_median: float = float("nan")
    error_p90: float = float("nan")
    source: str = ""

    def value(self, name: str, default: float | None = None) -> float:
        """The parameter called ``name``; KeyError where there is neither it nor a default."""
        for key, value in self.values:
            if key == name:
                return value
        if default is None:
            raise KeyError(f"{self.family}: parameter {name}")
        return default

    def inside(self, batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which kernels lie inside the fitted range, in every dimension."""
        within = np.ones(len(batch), dtype=np.bool_)
        for name, low, high in self.ranges:
            values = batch.dim(name)
            within &= (values >= low) & (values <= high)
        return within

    def interval(self, seconds: Floats) -> tuple[Floats, Floats]:
        """Low and high factor for predictions of ``seconds``."""
        uppers = np.array([regime.upper_s for regime in self.regimes[:-1]])
        index = np.searchsorted(uppers, seconds, side="right")
        low = np.array([regime.low for regime in self.regimes])
        high = np.array([regime.high for regime in self.regimes])
        return low[index], high[index]


@dataclass(frozen=True, slots=True)
class Choice:
    """The fit chosen for a kernel family on a chip, and how it relates to that chip."""

    fit: Fit
    own: bool  # the chip's own measurements; False: a relative's, or pooled

    def source(self) -> Source:
        """What a time inside the fitted range may call itself."""
        if self.own:
            return Source.CALIBRATED
        return Source.ANALYTIC if self.fit.rows else Source.DATASHEET


def choose(family: str, chip: Chip, *, library: str = "", precision: str = "", variant: str = "") -> Choice:
    """The best fit there is; KeyError when the family has no file."""
    fits = load(family)
    paths = ((precision, variant), (precision, ""), ("", variant), ("", ""))
    libraries = (library, *LIBRARIES)
    for name in (chip.name, *chip.relatives, POOLED):
        on_chip = [fit for fit in fits if fit.chip == name]
        for path in paths:
            for candidate in libraries:
                for fit in on_chip:
                    if (fit.precision, fit.variant) == path and fit.library == candidate:
                        return Choice(fit, own=name == chip.name)
    raise KeyError(family)


@cache
def load(family: str) -> tuple[Fit, ...]:
    """The fits of ``parameters/<family>.json``."""
    text = resources.files("windtunnel.cost").joinpath("parameters", f"{family}.json").read_text("utf-8")
    return tuple(_fit(family, entry) for entry in json.loads(text)["fits"])


def _fit(family: str, entry: dict[str, object]) -> Fit:
    fields = dict(entry)
    fields["values"] = tuple(sorted(_mapping(fields["values"]).items()))
    ranges = _mapping(fields.get("ranges", {}))
    fields["ranges"] = tuple((name, ends[0], ends[1]) for name, ends in sorted(ranges.items()))
    fields["regimes"] = tuple(Regime(*regime) for regime in _rows(fields["regimes"]))
    return Fit(family=family, **fields)  # type: ignore[arg-type]


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a table, got {value!r}")
    return value


def _rows(value: object) -> list[list[float]]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return [[float("inf") if cell is None else float(cell) for cell in row] for row in value]
