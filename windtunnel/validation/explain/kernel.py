"""Why a kernel takes as long as predicted: formula, inputs and what each moves, fit, range, nearest measurement.

Inputs are found by asking: every number of the chip's data sheet is raised by one percent and the kernel priced
again; those that change its time are listed with the change. So the list holds for any cost model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from windtunnel.cost.batch import Batch
from windtunnel.cost.choose import choose
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Limit
from windtunnel.cost.model import MODELS, CostModel, Settings
from windtunnel.estimate import Source
from windtunnel.specs.schema import Chip, Quantity
from windtunnel.validation.explain.points import Near, Point, nearest, path_of
from windtunnel.validation.kernel_scores import roofline

STEP = 1.01
LEAST_CHANGE = 1e-4
"""Changes of the time per percent of an input below this, in percent, are none."""


@dataclass(frozen=True, slots=True)
class Input:
    """One number of the data sheet. ``moves``: percent of the time per percent of it, near where it stands."""

    name: str
    value: float
    unit: str
    moves: float
    trust: str
    source: str


@dataclass(frozen=True, slots=True)
class Range:
    """A dimension of the kernel and the values seen while fitting."""

    name: str
    value: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether the kernel lies where points were."""
        return self.low <= self.value <= self.high


@dataclass(frozen=True, slots=True)
class FitUsed:
    """The fit that gave the parameters; ``relation``: own, relative's or pooled. ``rows``: measured rows it saw."""

    relation: str
    chip: str
    library: str
    path: str
    rows: int
    tables: str
    error_median: float
    error_p90: float
    parameters: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class KernelWhy:
    """One kernel, taken apart. Seconds; ``low_s`` and ``high_s`` are its 80 % interval."""

    what: str
    chip: str
    path: str
    dims: tuple[tuple[str, float], ...]
    flops: float
    bytes_moved: float
    seconds: float
    low_s: float
    high_s: float
    source: Source
    limit: str
    formula: str
    roofline_s: float
    inputs: tuple[Input, ...]
    fit: FitUsed
    ranges: tuple[Range, ...]
    near: Near | None
    near_predicted_s: float | None  # our prediction of the nearest measured shape, where it can be priced


def explain_kernel(
    batch: Batch,
    chip: Chip,
    points: Iterable[Point],
    *,
    library: str = "",
    allow_tf32: bool | None = None,
) -> KernelWhy:
    """Explain the one kernel in ``batch``. Raises what pricing raises: E501, E110."""
    settings = Settings(library=library, allow_tf32=allow_tf32)
    prices = CostModel(chip, settings).price(batch)
    seconds = float(prices.seconds[0])
    _, file, formula = MODELS[batch.family]
    choice = choose(file, chip, library=library, precision=batch.precision, variant=batch.variant)
    dims = tuple((name, float(values[0])) for name, values in sorted(batch.dims.items()))
    shape = dims or (("bytes", float(batch.bytes_moved[0])),)  # copies have no shape but their size
    path = path_of(batch.precision, batch.variant)
    family = str(batch.family)
    near = nearest(
        points, family=family, chips=(chip.name, *chip.relatives), path=path, dims=shape, library=library
    )
    return KernelWhy(
        what=family,
        chip=chip.name,
        path=path,
        dims=dims,
        flops=float(batch.flops[0]),
        bytes_moved=float(batch.bytes_moved[0]),
        seconds=seconds,
        low_s=float(prices.low_s[0]),
        high_s=float(prices.high_s[0]),
        source=prices.sources[0 if prices.inside[0] else 1],
        limit=Limit(int(prices.limit[0])).name.lower(),
        formula=formula,
        roofline_s=float(roofline(batch, chip)[0]),
        inputs=_inputs(batch, chip, settings, seconds),
        fit=_fit_used(choice.fit, choice.own, chip),
        ranges=tuple(
            Range(name, float(batch.dim(name)[0]), low, high) for name, low, high in choice.fit.ranges
        ),
        near=near,
        near_predicted_s=_same_kernel(batch, chip, settings, near),
    )


def _fit_used(fit: Fit, own: bool, chip: Chip) -> FitUsed:
    relation = (
        "the chip's own" if own else "pooled over chips" if not fit.chip else f"of its relative {fit.chip}"
    )
    return FitUsed(
        relation if fit.rows else "none: plain peaks of the data sheet",
        fit.chip,
        fit.library,
        path_of(fit.precision, fit.variant),
        fit.rows,
        fit.source,
        fit.error_median,
        fit.error_p90,
        fit.values,
    )


def quantities(chip: Chip) -> list[tuple[str, Quantity]]:
    """Every number of a data sheet by name; peaks as ``peak_flops.bf16``."""
    plain = [(f.name, getattr(chip, f.name)) for f in fields(chip)]
    peaks = [(f"peak_flops.{name}", peak) for name, peak in sorted(chip.peak_flops.items())]
    return [*((name, value) for name, value in plain if isinstance(value, Quantity)), *peaks]


def raised(chip: Chip, name: str, quantity: Quantity) -> Chip:
    """The chip with one number one percent higher."""
    higher = replace(quantity, value=quantity.value * STEP)
    if name.startswith("peak_flops."):
        return replace(chip, peak_flops={**chip.peak_flops, name.partition(".")[2]: higher})
    return replace(chip, **{name: higher})  # type: ignore[arg-type]


def _inputs(batch: Batch, chip: Chip, settings: Settings, seconds: float) -> tuple[Input, ...]:
    found = []
    for name, quantity in quantities(chip):
        changed = float(CostModel(raised(chip, name, quantity), settings).price(batch).seconds[0])
        moves = (changed / seconds - 1.0) / (STEP - 1.0)
        if abs(moves) > LEAST_CHANGE:
            found.append(
                Input(name, quantity.value, quantity.unit, moves, str(quantity.trust), quantity.source)
            )
    return tuple(sorted(found, key=lambda item: (-abs(item.moves), item.name)))


def _same_kernel(batch: Batch, chip: Chip, settings: Settings, near: Near | None) -> float | None:
    """The prediction for the shape that was measured: only where it is the very same shape and path."""
    if near is None or near.point.chip != chip.name or not near.same_path:
        return None
    if near.factor > 1.0 + 1e-9 or near.point.kernels > 1:
        return None
    own = replace(settings, library=near.point.library)
    return float(CostModel(chip, own).price(batch).seconds[0])
