"""The dumbest baseline: the measured time of the nearest shape in the calibration tables, scaled by nothing.

Nearest in the logarithms of all dimensions among points of the same kernel by the same library on the same chip; on
any chip where the chip has none; by any library where the library has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.errors import WindtunnelError
from windtunnel.validation.explain.points import Point, collectives_of, kernels_of, path_of, tables_of_folder
from windtunnel.validation.measured import MeasuredRows

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cloud:
    """Points that may answer for each other: their dimensions as logarithms, their seconds, and a search tree."""

    names: tuple[str, ...]
    tree: object
    seconds: Floats


class Nearest:
    """Looks shapes up in the kernel and collective tables of a folder. Needs scipy: E955 without it."""

    def __init__(self, folder: Path) -> None:
        self._columns: dict[Key, list[_Columns]] = defaultdict(list)
        for columns in _columns_of(folder):
            for size in (4, 3, 2):
                self._columns[columns.key[:size]].append(columns)
        self._clouds: dict[Key, _Cloud] = {}

    def kernels(self, rows: MeasuredRows) -> Floats:
        """Seconds of the nearest measured kernels, NaN where no table has any of the kind."""
        first = rows.parts[0]
        path = path_of(first.precision, first.variant)
        return self.of(str(first.family), rows.chip, rows.library, path, first.dims, len(rows))

    def of(
        self, family: str, chip: str, library: str, path: str, dims: Mapping[str, Floats], length: int
    ) -> Floats:
        """Seconds of the nearest points for ``length`` shapes given by columns."""
        for key in ((family, path, library, chip), (family, path, library), (family, path)):
            if key in self._columns:
                if key not in self._clouds:
                    self._clouds[key] = _cloud(self._columns[key])
                cloud = self._clouds[key]
                columns = [np.log(np.maximum(dims.get(name, np.zeros(length)), 1.0)) for name in cloud.names]
                _, index = cloud.tree.query(np.nan_to_num(np.stack(columns, axis=1)))  # type: ignore[attr-defined]
                return np.asarray(cloud.seconds[index])
        return np.full(length, np.nan)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Measured shapes of one key: their dimensions as columns, 0 where a shape has none, and their seconds."""

    key: Key
    dims: Mapping[str, Floats]
    seconds: Floats


def _columns_of(folder: Path) -> Iterator[_Columns]:
    for table in tables_of_folder(folder):
        yield from filter(None, map(_of_rows, kernels_of(table)))
        yield from map(_of_point, collectives_of(table))


def _of_rows(rows: MeasuredRows) -> _Columns | None:
    first = rows.parts[0]
    measured = np.isfinite(rows.seconds) & (rows.seconds > 0)
    if not measured.any():
        return None
    key = (str(first.family), path_of(first.precision, first.variant), rows.library, rows.chip)
    columns = {name: np.where(values > 0, values, 0.0)[measured] for name, values in first.dims.items()}
    return _Columns(
        key, {name: values for name, values in columns.items() if values.any()}, rows.seconds[measured]
    )


def _of_point(point: Point) -> _Columns:
    dims = {name: np.array([value]) for name, value in point.dims}
    return _Columns((point.family, point.path, point.library, point.chip), dims, np.array([point.seconds]))


def _cloud(members: Sequence[_Columns]) -> _Cloud:
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        raise WindtunnelError(
            "E955",
            "looking up the nearest shapes needs scipy",
            hint="pip install 'windtunnel[data]', or leave out --calibration",
        ) from None
    names = tuple(sorted({name for columns in members for name in columns.dims}))
    shapes = [
        np.stack([columns.dims.get(name, np.zeros(len(columns.seconds))) for name in names], axis=1)
        for columns in members
    ]
    table = np.log(np.maximum(np.concatenate(shapes), 1.0))
    return _Cloud(names, cKDTree(table), np.concatenate([columns.seconds for columns in members]))
