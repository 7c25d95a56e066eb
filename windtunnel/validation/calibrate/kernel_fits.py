"""Fit the parameters of one kernel family on measured tables and write them with their errors.

Per kernel path (library, precision, variant): first pooled over chips, each chip weighing the same; then for
every chip with its prior at the pooled values, so that a chip with few points borrows the shape. Errors and
intervals come from shape groups left out of the fit (three in ten), and for pooled fits from whole chips left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from windtunnel.cost.fit import POOLED, Fit, Regime
from windtunnel.cost.kernel_time import Floats, Limit
from windtunnel.cost.model import MODELS, CostModel, Settings
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip
from windtunnel.validation.calibrate.fitting import Free, Points, fit_values, predict
from windtunnel.validation.calibrate.kernel_families import LATER, Stage
from windtunnel.validation.kernel_scores import roofline
from windtunnel.validation.measured import MeasuredRows
from windtunnel.validation.score import weighted_quantile

FEW_ROWS = 20
"""Below this a chip only moves peak fractions and fixed times, and borrows the shape of everything else."""
FEW_LOW, FEW_HIGH = 0.8, 1.25
"""Narrowest interval that a handful of rows can justify."""
LOOKUP_ROWS = 1000
"""Rows that the nearest-shape baseline searches, and rows that it answers."""
FEW_FREE = frozenset({"issue", "softmax", "dram", "move", "floor_s", "fill_clocks", "rate"})
OF_MEMORY = frozenset({"dram", "l2", "resident", "stream"})
MEMORY_SHARE = 0.1
"""Rows that memory must bound before a fit of products may move what memory does."""
REGIME_ENDS_S = (1e-5, 3e-5, 1e-4, 1e-3)
REGIME_ROWS = 60

Entry = dict[str, object]


@dataclass(frozen=True, slots=True)
class KernelPath:
    """A kernel path: what a fit is for."""

    library: str
    precision: str
    variant: str


@dataclass(frozen=True, slots=True)
class Residuals:
    """Predicted and measured seconds of rows that the fit did not see, beside two plain baselines."""

    predicted_s: Floats
    measured_s: Floats
    nearest_s: Floats  # baseline: the measured time of the nearest shape that the fit saw
    roofline_s: Floats  # baseline: data sheet alone


def fit_stage(stage: Stage, rows: Sequence[MeasuredRows], chips: Mapping[str, Chip]) -> list[Entry]:
    """All fits of one parameter file."""
    paths = _by_path(stage, rows, chips)
    generic = _generic(stage, paths)
    entries = [_entry(stage, POOLED, KernelPath("", "", ""), *generic)]
    for path in sorted(paths, key=lambda item: (item.precision, item.variant, item.library)):
        points = paths[path]
        free = _free(stage, path)
        if not path.variant:  # a variant is another kernel: it starts from the textbook
            free = _started(free, generic[0])
        fixed = _fixed(stage, free, path)
        pooled = fit_values(list(points.values()), _family(points), free, fixed)
        entries.append(
            _entry(stage, POOLED, path, pooled, list(points.values()), _chips_left_out(points, free, fixed))
        )
        for name in sorted(points):
            few = len(points[name]) < FEW_ROWS
            alone = few and len(points) < 3 and not path.variant
            base = {**pooled, **generic[0]} if alone else pooled
            allowed = [item for item in free if not few or item.name in FEW_FREE]
            moved = _started(_informed(allowed, points[name], base), base)
            values = fit_values([points[name]], _family(points), moved, base)
            left_out = _shapes_left_out(points[name], _family(points), moved, base)
            entries.append(_entry(stage, name, path, values, [points[name]], left_out))
    return entries


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Write a parameter file; equal fits give equal bytes."""
    path.write_text(json.dumps({"fits": list(entries)}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _informed(free: Sequence[Free], points: Points, values: Mapping[str, float]) -> list[Free]:
    """Those parameters that the rows say something about."""
    if "issue" not in values:
        return list(free)
    family = points.parts[0].family
    fit = Fit(family=str(family), chip="", values=tuple(values.items()), regimes=(Regime(np.inf, 1.0, 1.0),))
    limits = np.concatenate([MODELS[family][0](part, points.chip, fit).limit for part in points.parts])
    bound = np.mean(limits == int(Limit.MEMORY)) >= MEMORY_SHARE
    return [item for item in free if bound or item.name not in OF_MEMORY]


def _started(free: Sequence[Free], values: Mapping[str, float]) -> tuple[Free, ...]:
    """The same parameters, starting from the values of another fit."""
    return tuple(
        replace(item, start=float(np.clip(values.get(item.name, item.start), item.low, item.high)))
        for item in free
    )


def _generic(
    stage: Stage, paths: Mapping[KernelPath, Mapping[str, Points]]
) -> tuple[dict[str, float], list[Points], Residuals]:
    """One fit over everything plain, for kernel paths that nobody measured and as a start for the others."""
    together: dict[str, list[Points]] = {}
    for path, points in paths.items():
        if (
            path.variant == ""
            and not _extras(stage, path)
            and path.library in (stage.generic_of or (path.library,))
        ):
            for name, item in points.items():
                together.setdefault(name, []).append(item)
    if not together:
        together = {name: [item] for points in paths.values() for name, item in points.items()}
    flat = [item for name in sorted(together) for item in together[name]]
    family = flat[0].parts[0].family
    values = fit_values(flat, family, stage.free, dict(stage.fixed))
    residuals = [_residuals(item, [], family, values) for item in flat]
    return values, flat, _joined(residuals)


def _by_path(
    stage: Stage, rows: Sequence[MeasuredRows], chips: Mapping[str, Chip]
) -> dict[KernelPath, dict[str, Points]]:
    gathered: dict[KernelPath, dict[str, list[Points]]] = {}
    for item in rows:
        mine = tuple(part for part in item.parts if part.family in stage.families)
        others = tuple(part for part in item.parts if part.family not in stage.families)
        later = any(part.family in LATER[stage.file] for part in others)
        if not mine or later or item.chip not in chips or "+" in item.library:
            continue
        good = np.isfinite(item.seconds) & (item.seconds > 0)
        for part in mine:
            good &= np.all([np.isfinite(column) for column in part.dims.values()], axis=0)
        if not good.any():
            continue
        model = CostModel(chips[item.chip], Settings(library=item.library))
        other_s = sum((model.price(part.where(good)).seconds for part in others), np.zeros(int(good.sum())))
        path = KernelPath(item.library, mine[0].precision, mine[0].variant)
        points = Points(
            chips[item.chip],
            tuple(part.where(good) for part in mine),
            np.asarray(other_s),
            item.seconds[good],
            item.shape_group[good],
        )
        gathered.setdefault(path, {}).setdefault(item.chip, []).append(points)
    return {
        path: {name: _merged(parts) for name, parts in by_chip.items()} for path, by_chip in gathered.items()
    }


def _merged(points: Sequence[Points]) -> Points:
    """Rows of several tables as one; batches are joined dimension by dimension."""
    if len(points) == 1:
        return points[0]
    most = max(len(item.parts) for item in points)
    same = [item for item in points if len(item.parts) == most]
    offset = np.cumsum([0, *(int(item.shape_group.max()) + 1 for item in same[:-1])])
    return Points(
        same[0].chip,
        tuple(same[0].parts[i].joined([item.parts[i] for item in same[1:]]) for i in range(most)),
        np.concatenate([item.other_s for item in same]),
        np.concatenate([item.seconds for item in same]),
        np.concatenate([item.shape_group + shift for item, shift in zip(same, offset)]),
    )


def _family(points: Mapping[str, Points]) -> Family:
    return next(iter(points.values())).parts[0].family


def _extras(stage: Stage, path: KernelPath) -> tuple[Free, ...]:
    return dict(stage.extras).get((path.library, path.precision), ())


def _fixed(stage: Stage, free: Sequence[Free], path: KernelPath) -> dict[str, float]:
    """Parameters that a fit leaves alone."""
    moved = {item.name for item in free}
    known = {name: value for kernel, name, value in stage.known if kernel == path.library.split("@")[0]}
    known = {} if path.variant.startswith("mla") else known
    return {
        **dict(stage.fixed),
        **known,
        **{item.name: item.start for item in stage.free if item.name not in moved},
    }


def _free(stage: Stage, path: KernelPath) -> tuple[Free, ...]:
    """Its parameters; where the launch was timed too, the floor cannot be told from it and stays at its start."""
    extras = _extras(stage, path)
    timed_launch = any(item.name == "host_s" for item in extras)
    return tuple(item for item in stage.free if not (timed_launch and item.name == "floor_s")) + extras


def _shapes_left_out(
    points: Points, family: Family, free: Sequence[Free], fixed: dict[str, float]
) -> Residuals:
    """Residuals of shape groups left out: three in ten, or each in turn where there are few."""
    groups = np.unique(points.shape_group)
    if len(points) < FEW_ROWS:
        folds = [points.shape_group == group for group in groups]
    else:
        drawn = np.random.default_rng(1).permutation(groups)
        folds = [np.isin(points.shape_group, drawn[: max(1, round(0.3 * len(groups)))])]
    found = []
    for fold in folds:
        if fold.all():
            found.append(_residuals(points, [], family, fixed))
            break
        seen = points.where(~fold)
        values = fit_values([seen], family, free, fixed)
        found.append(_residuals(points.where(fold), [seen], family, values))
    return _joined(found)


def _chips_left_out(points: Mapping[str, Points], free: Sequence[Free], fixed: dict[str, float]) -> Residuals:
    """Residuals of each chip predicted from the others; of the fit itself where only one chip was measured."""
    found = []
    for name in sorted(points):
        rest = [item for other, item in points.items() if other != name]
        values = fit_values(rest or [points[name]], _family(points), free, fixed)
        found.append(_residuals(points[name], rest, _family(points), values))
    return _joined(found)


def _residuals(points: Points, seen: Sequence[Points], family: Family, values: dict[str, float]) -> Residuals:
    parts = [roofline(part, points.chip) for part in points.parts]
    return Residuals(
        predict(points, family, values),
        points.seconds,
        nearest_seconds(points, seen),
        np.asarray(sum(parts, points.other_s)),
    )


def nearest_seconds(points: Points, seen: Sequence[Points]) -> Floats:
    """The time of the nearest shape in ``seen``, by the logarithms of all dimensions; NaN where nothing was seen."""
    if not seen:
        return np.full(len(points), np.nan)
    names = sorted(points.parts[0].dims)
    known = np.concatenate([_logarithms(item, names) for item in seen])
    times = np.concatenate([item.seconds for item in seen])
    if len(known) > LOOKUP_ROWS:
        chosen = np.random.default_rng(0).choice(len(known), LOOKUP_ROWS, replace=False)
        known, times = known[chosen], times[chosen]
    wanted = _logarithms(points, names)
    found = [int(np.abs(known - row).sum(axis=1).argmin()) for row in wanted[:LOOKUP_ROWS]]
    answer = np.full(len(points), np.nan)
    answer[: len(found)] = times[found]
    return answer


def _logarithms(points: Points, names: Sequence[str]) -> Floats:
    return np.log(np.stack([points.parts[0].dim(name) for name in names], axis=1) + 1.0)


def _joined(found: Sequence[Residuals]) -> Residuals:
    names = ("predicted_s", "measured_s", "nearest_s", "roofline_s")
    return Residuals(*(np.concatenate([getattr(item, name) for item in found]) for name in names))


def _entry(
    stage: Stage,
    chip: str,
    path: KernelPath,
    values: Mapping[str, float],
    points: Sequence[Points],
    left_out: Residuals,
) -> Entry:
    error = np.abs(left_out.predicted_s / left_out.measured_s - 1.0)
    return {
        "chip": chip,
        "library": path.library,
        "precision": path.precision,
        "variant": path.variant,
        "values": {name: float(f"{value:.4g}") for name, value in values.items()},
        "ranges": {name: _range(name, points) for name in stage.dims if name != "bytes"},
        "regimes": _regimes(left_out, few=sum(len(item) for item in points) < FEW_ROWS),
        "rows": sum(len(item) for item in points),
        "error_median": float(f"{weighted_quantile(error, left_out.measured_s, 0.5):.3g}"),
        "error_p90": float(f"{weighted_quantile(error, left_out.measured_s, 0.9):.3g}"),
        "roofline_median": _median(left_out.roofline_s, left_out.measured_s),
        "nearest_median": _median(left_out.nearest_s, left_out.measured_s),
        "source": ", ".join(stage.tables),
    }


def _median(baseline_s: Floats, measured_s: Floats) -> float | None:
    """Time-weighted median error of a baseline; None where it has no answer."""
    there = np.isfinite(baseline_s)
    if not there.any():
        return None
    error = np.abs(baseline_s[there] / measured_s[there] - 1.0)
    return float(f"{weighted_quantile(error, measured_s[there], 0.5):.3g}")


def _range(name: str, points: Sequence[Points]) -> list[float]:
    columns = [part.dim(name) for item in points for part in item.parts]
    return [float(min(column.min() for column in columns)), float(max(column.max() for column in columns))]


def _regimes(left_out: Residuals, *, few: bool) -> list[list[float | None]]:
    """Intervals by predicted duration; neighbours with few rows are merged."""
    ratio = left_out.measured_s / left_out.predicted_s
    regimes: list[list[float | None]] = []
    start = 0.0
    for end in (*REGIME_ENDS_S, np.inf):
        inside = (left_out.predicted_s >= start) & (left_out.predicted_s < end)
        last = end == np.inf
        if inside.sum() < REGIME_ROWS and not last:
            continue
        if inside.sum() < min(REGIME_ROWS, len(ratio)) and last and regimes:
            regimes[-1][0] = None
            break
        rows = ratio[inside] if inside.any() else ratio
        low, high = (float(f"{value:.3g}") for value in np.quantile(rows, [0.1, 0.9]))
        if few:
            low, high = min(low, FEW_LOW), max(high, FEW_HIGH)
        regimes.append([None if last else end, min(low, 1.0), max(high, 1.0)])
        start = end
    return regimes
