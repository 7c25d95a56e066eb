"""Every measured point of a chip predicted as if it had not been measured: what a further point should expect.

All rows of one shape are left out together. Where the chip keeps other rows of the kernel path, the path is fitted anew
on them, starting from what the chip would borrow; where it keeps none, the prediction is what the chip borrows for it:
its relatives' kernel, scaled as its own other kernels scale. Copies and collectives of a mesh likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.cost.choose import choose_from
from windtunnel.cost.fit import POOLED, Fit
from windtunnel.cost.fit_files import load
from windtunnel.errors import WindtunnelError
from windtunnel.network.mesh import mesh_s
from windtunnel.specs.catalogue import chip as known_chip
from windtunnel.specs.schema import Chip, ScaleUp
from windtunnel.validation.calibrate.fitting import Mask, Points, fit_values, predict
from windtunnel.validation.calibrate.kernel_families import STAGES, Stage
from windtunnel.validation.calibrate.kernel_fits import moved_parameters
from windtunnel.validation.calibrate.kernel_points import KernelPath, points_by_path
from windtunnel.validation.calibrate.network import fit_mesh_points
from windtunnel.validation.calibrate.network_points import mesh_points
from windtunnel.validation.kernels import rows_of_folder

ROWS_FEW = 20
"""Rows from which on a chip counts as swept."""
ROWS_MAX = 200
"""Points of one kernel path that are left out one by one; more are a sweep, of which calibrate leaves out parts."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One point. ``how``: what the prediction rests on."""

    family: str
    library: str
    path: str
    shape: str
    measured_s: float
    predicted_s: float
    how: str

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted_s / self.measured_s - 1.0


def leave_one_out(data: Path, name: str, families: Sequence[str] = ()) -> Iterator[LeftOut]:
    """Each point of the chip called ``name`` in the tables of ``data``.

    Raises WindtunnelError E110 for a chip that is not known, E953 where no table has a point of it.
    """
    chip, seen = known_chip(name), 0
    for stage in STAGES:
        if families and stage.file not in families:
            continue
        rows = [row for row in rows_of_folder(data, stage.tables) if row.chip == chip.name]
        paths = points_by_path(stage, rows, {chip.name: chip})
        for path in sorted(paths, key=lambda item: (item.precision, item.variant, item.library)):
            points = paths[path][chip.name]
            if len(points) <= ROWS_MAX:
                for found in _of_path(stage, path, points, chip):
                    seen += 1
                    yield found
    if chip.scale_up is ScaleUp.MESH and not families:
        for found in _of_mesh(data, chip.name):
            seen += 1
            yield found
    if not seen:
        raise WindtunnelError(
            "E953",
            f"no points of {chip.title} in {data}",
            hint="give the calibration tables, such as --data measurements/calibration",
        )


def _of_path(stage: Stage, path: KernelPath, points: Points, chip: Chip) -> Iterator[LeftOut]:
    family = points.parts[0].family
    borrowed = _borrowed(load(stage.file), stage, path, chip)
    for fold in _folds(points):
        held = points.where(fold)
        if fold.all():
            values, how = borrowed, "borrowed"
        else:
            seen = points.where(~fold)
            moved = moved_parameters(stage, path, seen, borrowed)
            values = fit_values([seen], family, moved, borrowed)
            how = f"{len(seen)} other rows"
        predicted = predict(held, family, values)
        for number in range(len(held)):
            words = " ".join(
                f"{key}={column[number]:g}"
                for key, column in sorted(held.parts[0].dims.items())
                if column[number]
            )
            yield LeftOut(
                stage.file, path.library, "/".join(part for part in (path.precision, path.variant) if part),
                words, float(held.seconds[number]), float(predicted[number]), how,
            )  # fmt: skip


def _folds(points: Points) -> Iterator[Mask]:
    """Rows of one shape at a time."""
    names = sorted(points.parts[0].dims)
    shapes = np.stack([part.dim(name) for part in points.parts for name in names], axis=1)
    _, place = np.unique(shapes, axis=0, return_inverse=True)
    for number in range(int(place.max()) + 1):
        yield np.asarray(place.reshape(-1) == number)


def _borrowed(fits: Sequence[Fit], stage: Stage, path: KernelPath, chip: Chip) -> dict[str, float]:
    """What the chip would take for a path that was never measured on it: nothing pooled with its own rows.

    The same library's kernel on the nearest chip that was swept, else what any chip without this path takes.
    """
    same = {fit.chip: fit for fit in fits if _key(path) == (fit.library, fit.precision, fit.variant)}
    swept = [
        name for name, fit in sorted(same.items()) if name not in (POOLED, chip.name) and fit.rows > ROWS_FEW
    ]
    nearest = next((name for name in (*chip.relatives, *swept) if name in swept), "")
    if nearest:
        return {**dict(stage.fixed), **dict(same[nearest].values)}
    others = [
        fit
        for fit in fits
        if not (fit.chip == chip.name and _key(path) == (fit.library, fit.precision, fit.variant))
        and not (fit.chip == POOLED and fit.library == path.library and fit.precision == path.precision)
    ]
    found = choose_from(
        others, chip, family=stage.file, library=path.library, precision=path.precision,
        variant=path.variant, repeated=True,
    )  # fmt: skip
    assert found is not None, path
    return {**dict(stage.fixed), **dict(found.fit.values)}


def _key(path: KernelPath) -> tuple[str, str, str]:
    return path.library, path.precision, path.variant


def _of_mesh(data: Path, name: str) -> Iterator[LeftOut]:
    points = [point for point in mesh_points(data) if point.chip == name]
    for number, point in enumerate(points):
        found = fit_mesh_points(points[:number] + points[number + 1 :])
        seconds = mesh_s(point.kind, point.bytes, point.ranks, point.link / 7, found)[0]
        words = f"{point.ranks} cards, {point.bytes / 2**20:g} MiB"
        yield LeftOut(str(point.kind), "mccl", "", words, point.seconds, seconds, f"{len(points) - 1} others")


def medians(found: Sequence[LeftOut]) -> Mapping[str, tuple[int, float]]:
    """Family, and ``all`` → points and their median absolute error."""
    groups: dict[str, list[float]] = {}
    for item in found:
        for key in (item.family, "all"):
            groups.setdefault(key, []).append(abs(item.error))
    return {key: (len(errors), float(np.median(errors))) for key, errors in groups.items()}
