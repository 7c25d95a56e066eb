"""Parameters of family models: read from ``parameters/*.json``, chosen for a chip, a library and a path.

Each file holds the fits of one family. A fit carries the physical parameters (fractions of data sheet
quantities, and seconds), the range of shapes they were fitted on, their source, their error on shapes left
out of the fit, and the interval of their residuals. ``windtunnel calibrate`` writes the files.

Choice for a chip: ``choose``. Fits pooled over chips have ``chip = ""``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.kernel_time import Floats
from windtunnel.estimate import Source
from windtunnel.specs.schema import Chip

LIBRARIES = (
    "torch",
    "driver",
    "fa2",
    "fa2@vllm",
    "fa3@vllm",
    "flashmla",
    "fla",
    "cutlass@trtllm",
    "triton@vllm",
    "trtllm@trtllm-mla",
    "trtllm",
    "sglang",
    "deepgemm",
    "",
)
"""Order in which libraries stand in for each other when none is asked for: what PyTorch calls comes first."""

PYTORCH_KERNEL = {"attention": "fa2", "attention_backward": "fa2"}
"""What PyTorch calls where a chip was not measured with ``torch`` itself, borrowed from a relative if need be."""

PLAIN_VARIANTS = frozenset(
    {"flash", "efficient", "varlen", "paged", "flex", "tensorwise", "rowwise", "h2d", "d2h"}
)
"""Variants that are the plain kernel under another name."""

PRECISION_KIN = {
    "fp16": ("bf16",),
    "bf16": ("fp16",),
    "tf32": ("bf16",),
    "int8": ("fp8", "bf16"),
    "fp8": ("bf16",),
    "fp4": ("fp8", "bf16"),
    "fp64": ("fp32",),
}
"""Precisions whose fractions of peak stand in where a precision has no fit of its own."""

SAME_RATE = {"fp16": "bf16"}
"""Precisions that chips compute alike: fits of the second hold for the first."""

SCALES = frozenset({"issue", "dram", "move"})
"""Parameters that carry over between chips as a ratio: what a chip sustains of its data sheet."""

EXTRAS = frozenset({"quantise", "quantise_s", "host_s"})
"""Parameters of what a benchmark does beside the kernel; dropped unless its library was asked for."""

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
    roofline_median: float | None = None  # the same error of plain baselines on the same rows
    nearest_median: float | None = None
    source: str = ""

    def value(self, name: str, default: float | None = None) -> float:
        """The parameter called ``name``; KeyError where there is neither it nor a default."""
        for key, value in self.values:
            if key == name:
                return value
        if default is None:
            raise KeyError(f"{self.family}: parameter {name}")
        return default

    def without_extras(self) -> Fit:
        """The kernel alone."""
        return replace(self, values=tuple(pair for pair in self.values if pair[0] not in EXTRAS))

    def sustained(self) -> Fit:
        """The same kernels on a chip that has been busy for long: the power limit holds from the start."""
        if all(name != "throttle" for name, _ in self.values):
            return self
        rest = tuple(pair for pair in self.values if pair[0] != "throttle_s")
        return replace(self, values=(*rest, ("throttle_s", 1e-12)))

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
    """The fit chosen for a kernel path on a chip, and how it relates to that chip."""

    fit: Fit
    own: bool  # the chip's own measurements; False: a relative's, or pooled
    exact: bool  # the library asked for (or none was asked for), in this precision and variant

    def source(self) -> Source:
        """What a time inside the fitted range may call itself."""
        if self.own and self.exact:
            return Source.CALIBRATED
        return Source.ANALYTIC if self.fit.rows else Source.DATASHEET


def choose(family: str, chip: Chip, *, library: str = "", precision: str = "", variant: str = "") -> Choice:
    """The best fit there is; KeyError when the family has no file.

    For each kernel path from near to far (this precision and variant, this precision, its kin, anything):
    the chip's own fit by the library asked for, or by the same kernel in another harness (``kernel@harness``);
    that on a relative or pooled, rescaled to the chip; the chip's own fit by another library; where no library
    was asked for, a relative's or the pooled one. A library that nobody measured ends at the fit over everything.
    """
    for path in _paths(precision, variant):
        fits = [fit for fit in load(family) if (fit.precision, fit.variant) == path]
        asked = library or _called_by_pytorch(fits, family, chip)
        found = _on_path(fits, load(family), chip, asked)
        if found is not None:
            fit, own = found
            plain = path[1] == "" and variant in PLAIN_VARIANTS
            exact = (
                path[0] in (precision, SAME_RATE.get(precision))
                and (path[1] == variant or plain)
                and library in ("", fit.library)
            )
            return Choice(fit if library == fit.library else fit.without_extras(), own, exact)
    raise KeyError(family)


def _called_by_pytorch(fits: Sequence[Fit], family: str, chip: Chip) -> str:
    """The library to ask for where a program calls PyTorch: ``torch`` itself as measured on the nearest relative."""
    usual = PYTORCH_KERNEL.get(family, "")
    for name in (chip.name, *chip.relatives) if usual else ():
        known = {fit.library for fit in fits if fit.chip == name}
        if "torch" in known:
            return "" if name == chip.name else "torch"
        if usual in known:
            return usual
    return usual


def _paths(precision: str, variant: str) -> list[tuple[str, str]]:
    names = (precision, *PRECISION_KIN.get(precision, ()))
    paths = [(name, kind) for name in names for kind in dict.fromkeys((variant, ""))]
    return [*paths, ("", variant), ("", "")]


def _on_path(fits: Sequence[Fit], family: Sequence[Fit], chip: Chip, library: str) -> tuple[Fit, bool] | None:
    for name in (chip.name, *chip.relatives, POOLED) if library else ():
        for same_harness in (True, False):
            for fit in fits:
                if fit.chip == name and _is_by(fit, library, same_harness):
                    own = name == chip.name
                    return (fit, True) if own else (_rescaled(fit, family, chip.name), False)
    for name in (chip.name,) if library else (chip.name, *chip.relatives, POOLED):
        on_chip = {fit.library: fit for fit in fits if fit.chip == name}
        for candidate in (*LIBRARIES, *sorted(on_chip)):
            if candidate in on_chip:
                return on_chip[candidate], name == chip.name
    over_everything = [fit for fit in fits if (fit.chip, fit.library) == (POOLED, "")]
    return (over_everything[0], False) if over_everything else None


def _is_by(fit: Fit, library: str, same_harness: bool) -> bool:
    """Whether a fit is of ``library``, a kernel or ``kernel@harness``."""
    return fit.library == library if same_harness else fit.library.split("@")[0] == library.split("@")[0]


def _rescaled(fit: Fit, family: Sequence[Fit], chip: str) -> Fit:
    """The shape of ``fit``, its peak fractions scaled as another kernel path scales between the two chips."""
    here = {(other.library, other.precision, other.variant): other for other in family if other.chip == chip}
    there = {(o.library, o.precision, o.variant): o for o in family if o.chip == fit.chip}
    shared = sorted(
        set(here) & set(there), key=lambda key: (key[1] != fit.precision, key[0] != fit.library, key)
    )
    if not shared:
        return fit
    mine, theirs = here[shared[0]], there[shared[0]]
    values = tuple(
        (name, value * mine.value(name) / theirs.value(name) if name in SCALES else value)
        for name, value in fit.values
    )
    return replace(fit, values=values)


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
