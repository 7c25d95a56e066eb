"""A set of parameters of a family model, with the range it was fitted on and the interval of its residuals.

A fit carries the physical parameters (fractions of data sheet quantities, clocks, seconds), the range of shapes they
were fitted on, their source, their error on shapes left out of the fit, and the interval of their residuals.

Not here: where fits are kept (``fit_files.py``), which one a chip takes (``choose.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.kernel_time import Floats

EXTRAS = frozenset({"quantise", "quantise_clocks", "quantise_row_clocks", "host_s"})
"""Parameters of what a library does beside the kernel (it quantises its input); dropped unless that library was asked
for: a program records such work for itself."""

FLOORS = frozenset({"floor_clocks", "floor_s"})
"""Parameters of what a kernel costs however small it is."""

NEVER_SPLIT = 7.0
"""Place among the rules of splitting (``splits.RULES``) of kernels that leave keys whole."""

STREAMS = frozenset({"stream", "wide_stream", "alone_stream"})
"""Bytes a clock that one block draws from a cache."""

ADDED = "+"
"""Between the library that a kernel was measured in and the one whose extras were added to it."""

REPEATS = "repeats"
"""Marks kernels measured in a loop over the same data; dropped for a program, where other layers come between."""

POOLED = ""
"""The chip name of fits over all chips."""


@dataclass(frozen=True, slots=True)
class Regime:
    """80 % interval of kernels up to ``upper_s`` seconds, as factors on the prediction."""

    upper_s: float
    low: float
    high: float


def factors(regimes: Sequence[Regime], seconds: Floats) -> tuple[Floats, Floats]:
    """Low and high factor of each prediction of ``seconds``."""
    uppers = np.array([regime.upper_s for regime in regimes[:-1]])
    index = np.searchsorted(uppers, seconds, side="right")
    low = np.array([regime.low for regime in regimes])
    high = np.array([regime.high for regime in regimes])
    return low[index], high[index]


def apart(low: Floats, high: Floats, spread: float) -> tuple[Floats, Floats]:
    """An interval with an independent error of ``spread`` (in logarithms) on top, at both ends: also where one end was
    the value itself.
    """
    return (
        np.asarray(np.exp(-np.hypot(np.log(np.minimum(low, 1.0)), spread))),
        np.asarray(np.exp(np.hypot(np.log(np.maximum(high, 1.0)), spread))),
    )


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
    clock_hz: float = 0.0  # of the chips it was fitted on, their geometric mean; 0: not fitted

    def value(self, name: str, default: float | None = None) -> float:
        """The parameter called ``name``; KeyError where there is neither it nor a default."""
        for key, value in self.values:
            if key == name:
                return value
        if default is None:
            raise KeyError(f"{self.family}: parameter {name}")
        return default

    def called_by(self, library: str, *, repeated: bool) -> Fit:
        """The kernel as ``library`` calls it, alone for another than measured it; warm only if ``repeated``."""
        mine = library == self.library or (bool(library) and self.library.endswith(ADDED + library))
        dropped = (frozenset() if mine else EXTRAS) | (frozenset() if repeated else {REPEATS})
        return replace(self, values=tuple(pair for pair in self.values if pair[0] not in dropped))

    def sustained(self) -> Fit:
        """The same kernels on a chip that has been busy for long: the power limit holds from the start."""
        if all(name != "throttle" for name, _ in self.values):
            return self
        rest = tuple(pair for pair in self.values if pair[0] != "throttle_s")
        return replace(self, values=(*rest, ("throttle_s", 1e-12)))

    def with_floors(self, factor: float) -> Fit:
        """The same kernels if what they cost however small they are were ``factor`` of it."""
        if factor == 1.0:
            return self
        return self.with_values(
            {name: value * factor if name in FLOORS else value for name, value in self.values}
        )

    def in_precision(self, precision: str) -> Fit:
        """The kernel in another precision: the instructions around the matrix units stay as many an element.

        ``issue`` counts operands of 16 bits, so that half the bytes are half of it: FP8 kernels reach 0.4 to 0.7 of
        the ``issue`` of their BF16 relatives on every chip that both were measured on.
        """
        bytes_here, bytes_there = ELEMENT_BYTES.get(precision), ELEMENT_BYTES.get(self.precision)
        if bytes_here is None or bytes_there is None or bytes_here == bytes_there or precision == "tf32":
            return self
        share = bytes_here / bytes_there
        return self.with_values(
            {name: value * share if name == "issue" else value for name, value in self.values}
        )

    def widening(self) -> Fit:
        """The kernel over a cache of 8 bits that it widens as it reads: as many elements a clock, half the bytes.

        Its keys stay whole.

        Blocks of kernels without operands of 8 bits draw 0.4 to 0.6 of the bytes from 8-bit caches wherever both were
        measured (FlashAttention 3 and Triton on H100). TensorRT-LLM splits no keys of 8-bit caches but on Hopper
        (``attentionOp.cpp``: ``multi_block_mode``).
        """
        halves = {name: value / 2.0 for name, value in self.values if name in STREAMS}
        return self.with_values({**dict(self.values), **halves, "rule": NEVER_SPLIT})

    def inside(self, batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which kernels lie inside the fitted range, in every dimension."""
        within = np.ones(len(batch), dtype=np.bool_)
        for name, low, high in self.ranges:
            values = batch.dim(name)
            within &= (values >= low) & (values <= high)
        return within

    def interval(self, seconds: Floats) -> tuple[Floats, Floats]:
        """Low and high factor for predictions of ``seconds``."""
        return factors(self.regimes, seconds)

    def with_values(self, values: Mapping[str, float]) -> Fit:
        """The same fit with other parameters."""
        return replace(self, values=tuple(sorted(values.items())))
