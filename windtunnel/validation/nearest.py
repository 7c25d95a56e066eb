"""The dumbest baseline: the measured time of the nearest shape in the calibration tables, scaled by nothing.

Nearest in the logarithms of all dimensions among points of the same kernel by the same library on the same chip; on
any chip where the chip has none; by any library where the library has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.errors import WindtunnelError
from windtunnel.validation.explain.points import Point, path_of, points_of_folder
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
        self._clouds = _clouds(points_of_folder(folder))

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
            cloud = self._clouds.get(key)
            if cloud is not None:
                columns = [np.log(np.maximum(dims.get(name, np.zeros(length)), 1.0)) for name in cloud.names]
                _, index = cloud.tree.query(np.nan_to_num(np.stack(columns, axis=1)))  # type: ignore[attr-defined]
                return np.asarray(cloud.seconds[index])
        return np.full(length, np.nan)


def _clouds(points: Iterable[Point]) -> dict[Key, _Cloud]:
    groups: dict[Key, list[Point]] = defaultdict(list)
    for point in points:
        key = (point.family, point.path, point.library, point.chip)
        for size in (4, 3, 2):
            groups[key[:size]].append(point)
    return {key: _cloud(members) for key, members in groups.items()}


def _cloud(members: Sequence[Point]) -> _Cloud:
    try:
        from scipy.spatial import cKDTree
    except ImportError:
        raise WindtunnelError(
            "E955",
            "looking up the nearest shapes needs scipy",
            hint="pip install 'windtunnel[data]', or leave out --calibration",
        ) from None
    names = tuple(sorted({name for point in members for name, _ in point.dims}))
    place = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(members), len(names)))
    for i, point in enumerate(members):
        for name, value in point.dims:
            table[i, place[name]] = np.log(max(value, 1.0))
    return _Cloud(names, cKDTree(table), np.array([point.seconds for point in members]))
