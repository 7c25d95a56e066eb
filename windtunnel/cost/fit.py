"""Parameters of family models: read from ``parameters/*.json``, chosen for a chip, a library and a path.

Each file holds the fits of one family. A fit carries the physical parameters (fractions of data sheet
quantities, and seconds), the range of shapes they were fitted on, their source, their error on shapes left
out of the fit, and the interval of their residuals. ``windtunnel calibrate`` writes the files.

Choice for a chip: ``choose``. Fits pooled over chips have ``chip = ""``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
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

KINDRED_VARIANTS = {"fp8_cache": "", "mla_fp8_cache": "mla"}
"""Variants that differ from another in what they read."""

SAME_TEMPLATE = {"flashinfer": "fa2"}
"""Kernels that are another one's program on chips without asynchronous matrix units (FlashInfer's documentation)."""

CUBLAS = frozenset({"torch", "sglang", "vllm", "trtllm", "vidur"})
"""Libraries whose plain 16-bit products are cuBLAS: what one of them measured on a chip holds for the others."""

SAME_RATE = {"fp16": "bf16"}
"""Precisions that chips compute alike: fits of the second hold for the first."""

SCALES = frozenset({"issue", "dram"})
"""Parameters that carry over between chips as a ratio: what a chip sustains of its data sheet."""

EXTRAS = frozenset({"quantise", "quantise_clocks", "host_s"})
"""Parameters of what a library does beside the kernel (it quantises its input); dropped unless that library was asked
for: a program records such work for itself."""

FLOORS = frozenset({"floor_clocks", "floor_s"})
"""Parameters of what a kernel costs however small it is."""

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

    def called_by(self, library: str, *, repeated: bool) -> Fit:
        """The kernel as ``library`` calls it, alone for another than measured it; warm only if ``repeated``."""
        dropped = (frozenset() if library == self.library else EXTRAS) | (
            frozenset() if repeated else {REPEATS}
        )
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


def choose(
    family: str,
    chip: Chip,
    *,
    library: str = "",
    precision: str = "",
    variant: str = "",
    repeated: bool = False,
) -> Choice:
    """The best fit there is; KeyError when the family has no file. ``repeated``: a benchmark, not a program.

    For each kernel path from near to far (this precision and variant, this precision, its kin, anything):
    the chip's own fit by the library asked for, or by the same kernel in another harness (``kernel@harness``);
    that on a relative or pooled, rescaled to the chip; the chip's own fit by another library; where no library
    was asked for, a relative's or the pooled one. A library that nobody measured ends at the fit over everything.
    """
    found = choose_from(
        load(family),
        chip,
        family=family,
        library=library,
        precision=precision,
        variant=variant,
        repeated=repeated,
    )
    if found is None:
        raise KeyError(family)
    return found


def choose_from(
    fits: Sequence[Fit],
    chip: Chip,
    *,
    family: str,
    library: str,
    precision: str,
    variant: str,
    repeated: bool,
) -> Choice | None:
    """``choose`` among given fits; None where nothing fits at all."""
    for path in _paths(precision, variant):
        on_path = [fit for fit in fits if (fit.precision, fit.variant) == path]
        asked = library or _called_by_pytorch(on_path, family, chip)
        found = _near(fits, on_path, chip, asked, path) or _on_path(on_path, fits, chip, asked)
        if found is not None:
            fit, own = found[0].in_precision(precision), found[1]
            plain = path[1] == "" and variant in PLAIN_VARIANTS
            exact = (
                (fit.precision, fit.variant) == path
                and path[0] in (precision, SAME_RATE.get(precision))
                and (path[1] == variant or plain)
                and library in ("", fit.library)
            )
            return Choice(fit.called_by(library, repeated=repeated), own, exact)
    return None


def _near(
    fits: Sequence[Fit], on_path: Sequence[Fit], chip: Chip, library: str, path: tuple[str, str]
) -> tuple[Fit, bool] | None:
    """The same library's kernel on a relative, in a kindred path, where no chip of the kind has this very path.

    What a library runs on one generation of matrix units is another program on the next: a 16-bit cache on a
    relative says more about an 8-bit one than an 8-bit cache on a chip of another generation does.
    """
    names = (chip.name, *chip.relatives)
    by_library = [fit for fit in on_path if fit.chip in names and _is_by(fit, library, same_harness=False)]
    if not library or any(fit.chip == chip.name for fit in by_library):
        return None
    if path == ("bf16", "") and library in CUBLAS and any(fit.family == "gemm" for fit in on_path):
        own = [fit for fit in on_path if fit.chip == chip.name and fit.library in CUBLAS]
        if own:
            return max(own, key=lambda fit: fit.rows), True
    if by_library:
        return None
    kernel, _, harness = library.partition("@")
    asked = (library, f"{SAME_TEMPLATE[kernel]}@{harness}") if kernel in SAME_TEMPLATE else (library,)
    attention = any(fit.family in PYTORCH_KERNEL for fit in fits)
    precisions = (path[0], *(PRECISION_KIN.get(path[0], ()) if attention else ()))
    variants = dict.fromkeys((path[1], KINDRED_VARIANTS.get(path[1], path[1])))
    for key in [(precision, variant) for precision in precisions for variant in variants]:
        kindred = [fit for fit in fits if fit.chip in names and (fit.precision, fit.variant) == key]
        for name in asked:
            nearby = [fit for fit in kindred if _is_by(fit, name, same_harness=False)]
            if nearby:
                return _on_path(nearby, fits, chip, name)
    return None


def transfer_kind(
    choice: Choice, fits: Sequence[Fit], chip: Chip, library: str, precision: str, variant: str
) -> str:
    """How far a borrowed fit comes: ``chip`` unknown or only the ``path``; the ``same`` kernel or an ``other``."""
    known = any(fit.chip == chip.name for fit in fits)
    fit = choice.fit
    plain = "" if variant in PLAIN_VARIANTS else variant
    kind = fit.precision == precision and fit.variant in (variant, plain)
    same = kind and _is_by(fit, library, same_harness=False)
    return f"{'path' if known else 'chip'}/{'same' if same else 'other'}"


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
                    fit = fit if same_harness else _without_harness(fit, family)
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


def _without_harness(fit: Fit, family: Sequence[Fit]) -> Fit:
    """A kernel that another harness calls: what its own harness spends beside it stays behind.

    That is a floor above, and handling slower than, those of the fit over everything.
    """
    generic = next((other for other in family if (other.chip, other.library) == (POOLED, "")), None)
    if generic is None:
        return fit
    usual = dict(generic.values)
    best = {"floor_clocks": min, "move": max}
    values = tuple(
        (name, best[name](value, usual[name]) if name in best and name in usual else value)
        for name, value in fit.values
    )
    return replace(fit, values=values)


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
    return tuple(fit_of(family, entry) for entry in _file(family)["fits"])


@cache
def transfer(family: str) -> Mapping[str, tuple[Regime, ...]]:
    """Intervals of borrowed fits by ``transfer_kind``: empty where too little was measured to leave anything out."""
    found = _mapping(_file(family).get("transfer", {}))
    return {kind: tuple(Regime(*row) for row in _rows(rows)) for kind, rows in found.items()}


def _file(family: str) -> dict[str, Any]:
    text = resources.files("windtunnel.cost").joinpath("parameters", f"{family}.json").read_text("utf-8")
    return dict(json.loads(text))


def fit_of(family: str, entry: Mapping[str, object]) -> Fit:
    """A fit from its entry in a parameter file."""
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
