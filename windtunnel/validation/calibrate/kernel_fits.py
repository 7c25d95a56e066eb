"""Fit the parameters of one kernel family on measured tables and write them with their errors.

Per kernel path (library, precision, variant): first pooled over chips, each chip weighing the same; then for
every chip with its prior at the pooled values, so that a chip with few points borrows the shape. Errors and
intervals come from shape groups left out of the fit (three in ten), and for pooled fits from whole chips left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from windtunnel.cost import splits
from windtunnel.cost.borrow import prefill_facts
from windtunnel.cost.decode_attention import WIDE
from windtunnel.cost.fit import POOLED, Fit, Regime
from windtunnel.cost.fit_files import fit_of
from windtunnel.cost.kernel_time import Limit
from windtunnel.cost.model import MODELS
from windtunnel.cost.stand_in import MODULE
from windtunnel.cost.tiles import MENUS, known_menu
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip
from windtunnel.validation.calibrate.fitting import (
    CLEARLY_LESS,
    Free,
    Points,
    fit_best,
    fit_values,
    solved_from,
)
from windtunnel.validation.calibrate.kernel_entries import Entry, by_hand, entry
from windtunnel.validation.calibrate.kernel_families import Stage
from windtunnel.validation.calibrate.kernel_points import EVERYTHING, KernelPath, points_by_path
from windtunnel.validation.calibrate.kernel_residuals import FEW_ROWS, Residuals, joined, residuals
from windtunnel.validation.calibrate.kernel_transfer import Table, transfer_intervals
from windtunnel.validation.measured import MeasuredRows

SHAPING_ROWS = 3
"""Rows of a chip from which on they bear on the pooled fit."""
FEW_FREE = frozenset({"issue", "softmax", "dram", "move", "floor_clocks", "floor_s", "fill_clocks", "rate"})
SINGLE_POINTS = frozenset({"s5000_measured", "s5000_end_to_end"})
"""Tables of single shapes out of notes and pull requests; the others sweep over shapes."""
OWN_SCALE = 2.0
"""Logarithmic width of the prior on a chip that only such tables know: its own points say what it sustains and
what a small kernel costs, however far from its relatives."""
OF_MEMORY = frozenset({"dram", "stream"})
MEMORY_SHARE = 0.1
"""Rows that memory must bound before a fit of products may move what memory does."""

CHOICE_ROWS = 100
"""Fewest rows that a choice (a menu of tiles) is made from."""
RULED_WIDTH = 0.1
"""Width of the prior on the throttle of libraries that walk tiles along one side, around that of their 16-bit products:
it belongs to the library and to the data of its harness. Their deepest products read from memory what tiles that drift
apart have lost from the cache, which is not modelled and looks like a slow clock."""
NEIGHBOURS = 2.0
"""Tiles that one read of the cache serves beyond a cluster whose shape is known: neighbouring clusters walk in step. An
assumption; without it SGLang's FP8 on H100, shapes left out, is 10.1 % off instead of 9.8."""
MODULE_FLOOR = 1e5
"""Where the search for the fixed clocks of a whole module starts."""


def fit_stage(
    stage: Stage, rows: Sequence[MeasuredRows], chips: Mapping[str, Chip]
) -> tuple[list[Entry], Table]:
    """All fits of one parameter file, and the intervals of borrowing them."""
    paths = points_by_path(stage, rows, chips)
    generic = _generic(stage, paths)
    entries = [by_hand(stage) if stage.by_hand else entry(stage, POOLED, EVERYTHING, *generic)]
    without: Without = {}
    if stage.begins:  # whose fit over everything stands for kernels of other generations
        without |= _generic_without(stage, generic[1])
    scarce = _scarce(rows)
    clocks: Clocks = {}
    for path in sorted(paths, key=lambda item: (item.precision, item.variant, item.library)):
        found, others = fit_path(stage, path, paths[path], generic[0], scarce, clocks)
        entries += found
        without |= others
    fits = [fit_of(stage.file, item) for item in entries]
    return entries, transfer_intervals(_comparable(stage, paths, scarce), fits, without)


Clocks = dict[tuple[str, str], float]
"""(library, chip) → throttle of its 16-bit products."""
Without = dict[tuple[KernelPath, str], dict[str, float]]
"""(path, chip) → the parameters of the pooled fit without that chip."""


def fit_path(
    stage: Stage,
    path: KernelPath,
    points: Mapping[str, Points],
    generic: Mapping[str, float],
    scarce: frozenset[str],
    clocks: Clocks,
) -> tuple[list[Entry], Without]:
    """Fits of one kernel path: pooled over chips, then of every chip; ``clocks`` are read and added to."""
    known = [clocks[path.library, name] for name in sorted(points) if (path.library, name) in clocks]
    free = _as_clocked(_free(stage, path), path, float(np.mean(known)) if known else None)
    fixed = _fixed(stage, free, path)
    shaping = _shaping(points)
    undecided = not set(dict(stage.choices)) & set(_known(stage, path))
    choices = choices_of(stage, path) if undecided and sum(map(len, shaping.values())) >= CHOICE_ROWS else ()
    pooled = fit_best(list(shaping.values()), _family(points), free, fixed, choices, stage.begins)
    pooled = _one_stream(pooled, shaping.values())
    fixed |= {name: pooled[name] for name, _ in choices}
    left_out, others = _chips_left_out(shaping, pooled, free, fixed)
    entries = [entry(stage, POOLED, path, pooled, list(shaping.values()), left_out)]
    for name in sorted(points):
        few = len(points[name]) < FEW_ROWS
        base = _base(pooled, generic, path, few, points, scarce if name in scarce else frozenset())
        base |= _known(stage, path)
        moved = _started(_informed(_movable(free, few, name in scarce), points[name], base), base)
        moved = _as_clocked(moved, path, clocks.get((path.library, name)))
        if stage.begins and not few:
            moved, base = _better_start(stage, path, points[name], moved, base)
        values = _one_stream(fit_values([points[name]], _family(points), moved, base), [points[name]])
        _keep_clock(clocks, path, name, values)
        left_out = _shapes_left_out(points[name], _family(points), moved, base)
        entries.append(entry(stage, name, path, values, [points[name]], left_out))
    return entries, {(path, name): values for name, values in others.items()}


def _one_stream(values: dict[str, float], points: Iterable[Points]) -> dict[str, float]:
    """Where all rows have wide heads, or none has: what blocks draw of the others, too; nothing seen says otherwise."""
    if "wide_stream" not in values:
        return values
    wide = np.concatenate([part.dim("qk_dim") > WIDE for item in points for part in item.parts])
    if wide.all():
        return {**values, "stream": values["wide_stream"]}
    return values if wide.any() else {**values, "wide_stream": values["stream"]}


def _is_ruled(path: KernelPath) -> bool:
    menu = known_menu("gemm", path.library, path.precision, path.variant)
    return menu is not None and not MENUS[int(menu)].swizzled


def _as_clocked(free: Sequence[Free], path: KernelPath, throttle: float | None) -> tuple[Free, ...]:
    """Parameters of a library that goes by a rule, its throttle near that of its 16-bit products on the same chips."""
    if throttle is None or not _is_ruled(path):
        return tuple(free)
    return tuple(
        replace(item, start=float(np.clip(throttle, item.low, item.high)), width=RULED_WIDTH)
        if item.name == "throttle"
        else item
        for item in free
    )


def _keep_clock(clocks: Clocks, path: KernelPath, chip: str, values: Mapping[str, float]) -> None:
    """Remember the throttle of a library's 16-bit products on a chip."""
    if (path.precision, path.variant) == ("bf16", "") and "throttle" in values:
        clocks[path.library, chip] = values["throttle"]


def _better_start(
    stage: Stage, path: KernelPath, points: Points, moved: tuple[Free, ...], base: dict[str, float]
) -> tuple[tuple[Free, ...], dict[str, float]]:
    """Parameters and base of a chip's own fit: those of the pooled one, unless starting afresh explains clearly more.

    Under one name a library may run another program on each generation, which a pooled fit takes the mean of.
    """
    family, free = points.parts[0].family, _free(stage, path)
    fixed = _fixed(stage, free, path)
    pooled_cost = solved_from([points], family, moved, base)[1]
    starts = [{**base, **fixed, name: value} for name, value in choices_of(stage, path)] or [
        {**base, **fixed}
    ]
    found = [solved_from([points], family, free, start, stage.begins) for start in starts]
    best = int(np.argmin([cost for _, cost in found]))
    if found[best][1] >= CLEARLY_LESS * pooled_cost:
        return moved, base
    return _started(free, found[best][0]), starts[best]


def choices_of(stage: Stage, path: KernelPath) -> tuple[tuple[str, float], ...]:
    """What may be tried: rules of splitting keys that are one kernel's are no other's."""
    kernel = path.library.split("@")[0]
    return tuple(
        (name, value)
        for name, value in stage.choices
        if name != "rule" or splits.RULES[int(value)].kernel in ("", kernel)
    )


def _comparable(
    stage: Stage, paths: Mapping[KernelPath, Mapping[str, Points]], scarce: frozenset[str]
) -> dict[KernelPath, dict[str, Points]]:
    """The kernels by which borrowing is judged: timed without their launch, on chips that were swept."""
    return {
        path: {name: item for name, item in points.items() if name not in scarce}
        for path, points in paths.items()
        if not _timed_launch(stage, path)
    }


def _timed_launch(stage: Stage, path: KernelPath) -> bool:
    return any(item.name == "host_s" for item in _extras(stage, path))


def _shaping(points: Mapping[str, Points]) -> Mapping[str, Points]:
    """The chips that say something about the shape of a kernel's efficiency: all where none has rows enough."""
    enough = {name: item for name, item in points.items() if len(item) >= SHAPING_ROWS}
    return enough or points


def _scarce(rows: Sequence[MeasuredRows]) -> frozenset[str]:
    """Chips that nobody swept: known by single points of single shapes."""
    swept = {item.chip for item in rows if item.file not in SINGLE_POINTS}
    return frozenset(item.chip for item in rows) - swept


def _base(
    pooled: Mapping[str, float],
    generic: Mapping[str, float],
    path: KernelPath,
    few: bool,
    points: Mapping[str, Points],
    scarce: frozenset[str],
) -> dict[str, float]:
    """Where a chip's own fit starts: the pooled one, or the one over everything where hardly any chip has the path.

    ``scarce``: chips that nobody swept, if the chip is one of them. It takes the path's shape from those that were,
    but for what memory does, of which its few large products say nothing.
    """
    if scarce and any(name not in scarce for name in points):
        return {**pooled, **{name: generic[name] for name in OF_MEMORY if name in pooled and name in generic}}
    alone = few and not path.variant and len(points) < 3
    return {**pooled, **generic} if alone else dict(pooled)


def _movable(free: Sequence[Free], few: bool, scarce: bool) -> list[Free]:
    """The parameters that a chip's own rows may move, and how far from those of the pooled fit."""
    if not few:
        return list(free)
    return [replace(item, width=OWN_SCALE) if scarce else item for item in free if item.name in FEW_FREE]


def moved_parameters(
    stage: Stage, path: KernelPath, points: Points, base: Mapping[str, float]
) -> tuple[Free, ...]:
    """What a handful of rows of a chip that nobody swept may move, starting from ``base``."""
    movable = _movable(_free(stage, path), few=True, scarce=True)
    return _started(_informed(movable, points, base), base)


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
        rows = [pair for points in paths.values() for pair in points.items()]
        together = {name: [item] for name, item in rows if len(item) >= SHAPING_ROWS}
    flat = [item for name in sorted(together) for item in together[name]]
    family = flat[0].parts[0].family
    values = fit_values(flat, family, stage.free, dict(stage.fixed))
    inside = [residuals(item, [], family, values) for item in flat]
    return values, flat, joined(inside)


def _generic_without(
    stage: Stage, everything: Sequence[Points]
) -> dict[tuple[KernelPath, str], dict[str, float]]:
    """The fit over everything without one chip, for each chip in it."""
    family = everything[0].parts[0].family
    found = {}
    for name in sorted({item.chip.name for item in everything}):
        rest = [item for item in everything if item.chip.name != name]
        if rest:
            found[EVERYTHING, name] = fit_values(rest, family, stage.free, dict(stage.fixed))
    return found


def _family(points: Mapping[str, Points]) -> Family:
    return next(iter(points.values())).parts[0].family


def _extras(stage: Stage, path: KernelPath) -> tuple[Free, ...]:
    menu = MENUS[int(_known(stage, path).get("menu", 0.0))]
    ruled = stage.ruled if menu.waits or not menu.swizzled else ()
    more = dict(stage.extras)
    named = [more.get((path.library, kind), ()) for kind in (path.precision, path.variant)]
    return named[0] + named[1] + ruled


def _fixed(stage: Stage, free: Sequence[Free], path: KernelPath) -> dict[str, float]:
    """Parameters that a fit leaves alone."""
    moved = {item.name for item in free}
    return {
        **dict(stage.fixed),
        **{item.name: item.start for item in stage.free if item.name not in moved},
        **_known(stage, path),
    }


def _known(stage: Stage, path: KernelPath) -> dict[str, float]:
    """What a library's source states."""
    kernel = path.library.split("@")[0]
    known = {name: value for of, name, value in stage.known if of == kernel}
    if path.variant.startswith("mla"):
        known.pop("group_max", None)  # all heads share one latent key
        known.pop("grouped_least", None)
    known |= {name: value for of, name, value in stage.known if of == path.library}
    if "tile" in dict(stage.fixed):
        known |= prefill_facts(path.library, path.precision, path.variant)
    menu = known_menu(stage.file, path.library, path.precision, path.variant)
    if menu is None:
        return known
    shared = {"shared": NEIGHBOURS} if MENUS[int(menu)].states_clusters and stage.file == "gemm" else {}
    return {**known, "menu": menu, **shared}


def _free(stage: Stage, path: KernelPath) -> tuple[Free, ...]:
    """Its parameters; where the launch was timed too, the floor cannot be told from it and stays at its start.

    The floor of a whole module is many kernels and gaps between them.
    """
    timed, known = _timed_launch(stage, path), _known(stage, path)
    kept = tuple(
        item for item in stage.free if item.name not in known and not (timed and item.name == "floor_clocks")
    )
    if path.library.endswith(MODULE):
        kept = tuple(
            replace(item, start=MODULE_FLOOR, width=3.0) if item.name == "floor_clocks" else item
            for item in kept
        )
    more = _extras(stage, path)
    named = {item.name for item in more}
    if stage.file == "gemm":
        named |= set(_known(stage, path))
    return tuple(item for item in kept if item.name not in named) + more


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
            found.append(residuals(points, [], family, fixed))
            break
        seen = points.where(~fold)
        values = fit_values([seen], family, free, fixed)
        found.append(residuals(points.where(fold), [seen], family, values))
    return joined(found)


def _chips_left_out(
    points: Mapping[str, Points], pooled: dict[str, float], free: Sequence[Free], fixed: dict[str, float]
) -> tuple[Residuals, dict[str, dict[str, float]]]:
    """Residuals of each chip predicted from the others, and the parameters that did so.

    Where only one chip was measured: of the fit itself.
    """
    found, others = [], {}
    for name in sorted(points):
        rest = [item for other, item in points.items() if other != name]
        values = fit_values(rest, _family(points), free, fixed) if rest else pooled
        found.append(residuals(points[name], rest, _family(points), values))
        if rest:
            others[name] = values
    return joined(found), others
