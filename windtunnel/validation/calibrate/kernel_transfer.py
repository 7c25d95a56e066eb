"""Intervals of fits that are borrowed: what choosing without the chip, or without the kernel on it, gets wrong.

Every kernel path of every chip is predicted as if it had not been measured, through the same choice that a
prediction makes (``cost/choose.choose_from``): without this path on the chip, which keeps its other libraries and
precisions; without anything of the chip in the family; without anything of its architecture.

What each got wrong is kept by how far the answer came (``cost/borrow.Distance``). Every path weighs the same, however
many rows it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from windtunnel.cost.borrow import distance
from windtunnel.cost.choose import Choice, choose_from
from windtunnel.cost.fit import POOLED, Fit
from windtunnel.cost.kernel_time import Floats
from windtunnel.specs.catalogue import generation_of
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
COVERED = 0.8
PATHS_TO_JUDGE = 4
"""Kernel paths from which on one can be left out to see how wide the interval of the others must be; ..."""
WIDENINGS = np.arange(0.5, 2.01, 0.05)
"""... the powers that are tried."""
ROWS_LEAST = 5
"""Kernel paths with fewer rows say too little about themselves, and fits of fewer about others."""

Table = dict[str, list[list[float | None]]]


def transfer_intervals(paths: PointsByPath, fits: Sequence[Fit], left_out: LeftOut) -> Table:
    """Intervals by distance and by predicted duration, as factors on the prediction."""
    found: dict[str, list[tuple[Floats, Floats]]] = {}
    for path, by_chip in paths.items():
        for name, every in by_chip.items():
            points = thinned(every)
            if len(points) < ROWS_LEAST:
                continue
            seen: set[tuple[str, str, str, str]] = set()
            for gone in (None, frozenset({name}), _architecture(name, fits)):
                choice = _chosen(path, points, _without(fits, path, name, left_out, gone))
                if choice is None or choice.fit.rows < ROWS_LEAST or not choice.fit.library:
                    continue
                if _key(choice.fit) in seen:
                    continue
                seen.add(_key(choice.fit))
                kind = str(distance(choice.fit, points.chip, path.library, path.precision, path.variant))
                seconds = predict(points, points.parts[0].family, dict(choice.fit.values))
                found.setdefault(kind, []).append((seconds, points.seconds / seconds))
    return {kind: _regimes(parts) for kind, parts in sorted(found.items()) if len(parts) >= PATHS_LEAST}


def _key(fit: Fit) -> tuple[str, str, str, str]:
    return (fit.chip, fit.library, fit.precision, fit.variant)


def _architecture(name: str, fits: Sequence[Fit]) -> frozenset[str]:
    """The chips of one architecture that were measured."""
    mine = generation_of(name)
    return frozenset({name, *(fit.chip for fit in fits if fit.chip and generation_of(fit.chip) == mine)})


def _chosen(path: KernelPath, points: Points, fits: Sequence[Fit]) -> Choice | None:
    return choose_from(
        fits,
        points.chip,
        library=path.library,
        precision=path.precision,
        variant=path.variant,
        family=str(points.parts[0].family),
        repeated=True,
    )


def _without(
    fits: Sequence[Fit], path: KernelPath, chip: str, left_out: LeftOut, gone: frozenset[str] | None
) -> list[Fit]:
    """The fits that are left when only this path on the chip was never measured, or nothing of the chips ``gone``.

    Pooled fits are those without the chip alone, also where more is gone.
    """
    rest = []
    for fit in fits:
        here = KernelPath(fit.library, fit.precision, fit.variant)
        if (fit.chip in gone) if gone is not None else (fit.chip == chip and here == path):
            continue
        if fit.chip == POOLED and fit.library and (here == path or gone is not None):
            values = left_out.get((here, chip))
            if values is None and (here == path or _only_there(fits, here, gone)):
                continue
            fit = fit if values is None else fit.with_values(values)
        rest.append(fit)
    return rest


def _only_there(fits: Sequence[Fit], path: KernelPath, gone: frozenset[str] | None) -> bool:
    """Whether a kernel path was measured on chips that are gone and nowhere else: its pooled fit goes with them."""
    measured = {
        fit.chip
        for fit in fits
        if fit.chip != POOLED and KernelPath(fit.library, fit.precision, fit.variant) == path
    }
    return gone is not None and bool(measured) and measured <= gone


def _regimes(parts: Sequence[tuple[Floats, Floats]]) -> list[list[float | None]]:
    seconds, ratio, weight = _together(parts)
    table: list[list[float | None]] = []
    widening = _widening(parts)
    start = 0.0
    for end in ENDS_S:
        inside = (seconds >= start) & (seconds < end)
        rows = inside if weight[inside].sum() >= 1.0 else np.ones(len(seconds), dtype=np.bool_)
        low, high = (end**widening for end in _ends(ratio[rows], weight[rows]))
        table.append([None if end == np.inf else end, float(f"{low:.3g}"), float(f"{high:.3g}")])
        start = end
    return table


def _widening(parts: Sequence[tuple[Floats, Floats]]) -> float:
    """The power that the factors of an interval are raised to.

    With it the interval of the other paths holds four in five rows of a path left out, on the mean over paths. Where
    paths are too few to leave one out, the fewer the wider.
    """
    if len(parts) < PATHS_TO_JUDGE:
        return 1.0 + 0.5 / float(np.sqrt(len(parts)))
    ends = []
    for left_out in parts:
        _, ratio, weight = _together([item for item in parts if item is not left_out])
        ends.append(_ends(ratio, weight))

    def coverage(widening: float) -> float:
        held = [
            np.mean((ratio >= low**widening) & (ratio <= high**widening))
            for (_, ratio), (low, high) in zip(parts, ends, strict=True)
        ]
        return float(np.mean(held))

    return next((float(width) for width in WIDENINGS if coverage(width) >= COVERED), float(WIDENINGS[-1]))


def _ends(ratio: Floats, weight: Floats) -> tuple[float, float]:
    low, high = (weighted_quantile(ratio, weight, q) for q in (0.1, 0.9))
    return min(low, LOW), max(high, HIGH)


def _together(parts: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats, Floats]:
    """Seconds, ratios and weights of all rows; every path weighs the same."""
    return (
        np.concatenate([item[0] for item in parts]),
        np.concatenate([item[1] for item in parts]),
        np.concatenate([np.full(len(item[0]), 1.0 / len(item[0])) for item in parts]),
    )
