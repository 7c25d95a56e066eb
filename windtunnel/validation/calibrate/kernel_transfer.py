"""Intervals of fits that are borrowed: what choosing without the chip, or without the kernel on it, gets wrong.

Every kernel path of every chip is predicted as if it had not been measured, through the same choice that a
prediction makes (``cost/fit.choose_from``):

* ``chip``: without anything of the chip in the family (a chip of which only the data sheet is known);
* ``path``: without this path on the chip, which keeps its other libraries and precisions.

Each again by whether the answer came from the same kernel (``same``) or from another (``other``). Every path weighs
the same, however many rows it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from windtunnel.cost.fit import POOLED, Fit, choose_from, transfer_kind
from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip
from windtunnel.validation.calibrate.fitting import Points, predict, thinned
from windtunnel.validation.calibrate.kernel_points import KernelPath
from windtunnel.validation.score import weighted_quantile

PointsByPath = Mapping[KernelPath, Mapping[str, Points]]
LeftOut = Mapping[tuple[KernelPath, str], Mapping[str, float]]
"""(path, chip) → parameters of the pooled fit without that chip; absent where no other chip was measured."""

ENDS_S = (1e-5, 1e-4, np.inf)
PATHS_LEAST = 2
"""Fewest kernel paths that an interval of its own is taken from."""
LOW, HIGH = 0.87, 1.15
"""Narrowest interval of anything borrowed, before it is widened for the number of paths it comes from."""
ROWS_LEAST = 5
"""Kernel paths with fewer rows say too little about themselves."""

Table = dict[str, list[list[float | None]]]


def transfer_intervals(paths: PointsByPath, fits: Sequence[Fit], left_out: LeftOut) -> Table:
    """Intervals by kind of borrowing and by predicted duration, as factors on the prediction."""
    found: dict[str, list[tuple[Floats, Floats]]] = {}
    for path, by_chip in paths.items():
        for name, every in by_chip.items():
            points = thinned(every)
            if len(points) < ROWS_LEAST:
                continue
            for known in (False, True):
                rest = _without(fits, path, name, left_out, known=known)
                answer = _borrowed(path, points, rest, known=known)
                if answer is not None:
                    kind, seconds = answer
                    found.setdefault(kind, []).append((seconds, points.seconds / seconds))
    return {kind: _regimes(parts) for kind, parts in sorted(found.items()) if len(parts) >= PATHS_LEAST}


def _borrowed(
    path: KernelPath, points: Points, fits: Sequence[Fit], *, known: bool
) -> tuple[str, Floats] | None:
    chip: Chip = points.chip
    if known and all(fit.chip != chip.name for fit in fits):
        return None
    family: Family = points.parts[0].family
    choice = choose_from(
        fits,
        chip,
        library=path.library,
        precision=path.precision,
        variant=path.variant,
        family=str(family),
        repeated=True,
    )
    if choice is None or not choice.fit.library:
        return None
    kind = transfer_kind(choice, fits, chip, path.library, path.precision, path.variant)
    return kind, predict(points, family, dict(choice.fit.values))


def _without(
    fits: Sequence[Fit], path: KernelPath, chip: str, left_out: LeftOut, *, known: bool
) -> list[Fit]:
    """The fits that are left when the chip, or only this path on it, was never measured."""
    rest = []
    for fit in fits:
        here = KernelPath(fit.library, fit.precision, fit.variant)
        if fit.chip == chip and (not known or here == path):
            continue
        if fit.chip == POOLED and fit.library and (here == path or not known):
            values = left_out.get((here, chip))
            if values is None and here == path:
                continue
            fit = fit if values is None else fit.with_values(values)
        rest.append(fit)
    return rest


def _regimes(parts: Sequence[tuple[Floats, Floats]]) -> list[list[float | None]]:
    seconds = np.concatenate([item[0] for item in parts])
    ratio = np.concatenate([item[1] for item in parts])
    weight = np.concatenate([np.full(len(item[0]), 1.0 / len(item[0])) for item in parts])
    table: list[list[float | None]] = []
    widening = 1.0 + 0.5 / np.sqrt(len(parts))  # few paths say little about the next one
    start = 0.0
    for end in ENDS_S:
        inside = (seconds >= start) & (seconds < end)
        rows = inside if weight[inside].sum() >= 1.0 else np.ones(len(seconds), dtype=np.bool_)
        low, high = (weighted_quantile(ratio[rows], weight[rows], q) for q in (0.1, 0.9))
        low, high = min(low, LOW) ** widening, max(high, HIGH) ** widening
        table.append([None if end == np.inf else end, float(f"{low:.3g}"), float(f"{high:.3g}")])
        start = end
    return table
