"""Measured rows gathered by kernel path and chip: what a stage fits, with the time of all else already priced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.cost.model import CostModel, Settings
from windtunnel.specs.schema import Chip
from windtunnel.validation.calibrate.fitting import Points
from windtunnel.validation.calibrate.kernel_families import LATER, Stage
from windtunnel.validation.measured import MeasuredRows


@dataclass(frozen=True, slots=True)
class KernelPath:
    """A kernel path: what a fit is for."""

    library: str
    precision: str
    variant: str


EVERYTHING = KernelPath("", "", "")
"""The path of the fit over all plain kernels."""


def points_by_path(
    stage: Stage, rows: Sequence[MeasuredRows], chips: Mapping[str, Chip]
) -> dict[KernelPath, dict[str, Points]]:
    """Rows that a stage can learn from, by kernel path and chip.

    Left out: rows with parts that a later stage fits, and rows whose measurement or dimensions are blank. Of whole
    modules (a harness that ends in ``-module``) attention is the part that is fitted, with all that the module does
    beside its products.
    """
    gathered: dict[KernelPath, dict[str, list[Points]]] = {}
    for item in rows:
        mine = tuple(part for part in item.parts if part.family in stage.families)
        others = tuple(part for part in item.parts if part.family not in stage.families)
        later = any(part.family in LATER[stage.file] for part in others)
        if not mine or later or item.chip not in chips:
            continue
        good = np.isfinite(item.seconds) & (item.seconds > 0)
        for part in mine:
            good &= np.all([np.isfinite(column) for column in part.dims.values()], axis=0)
        if not good.any():
            continue
        model = CostModel(chips[item.chip], Settings(library=item.library, repeated=True))
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
