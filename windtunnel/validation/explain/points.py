"""Measured points beside a prediction: the few that ship with the package, or all of a folder of tables.

The shipped file is a thinned copy of the calibration tables: of every kernel path of every chip a few shapes far
apart, so that each question has a neighbour. It serves explanations only; no prediction reads it.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.errors import WindtunnelError
from windtunnel.validation.formats import FORMATS, Kind
from windtunnel.validation.kernels import READERS
from windtunnel.validation.measured import MeasuredRows
from windtunnel.validation.measured_files import read_measured
from windtunnel.validation.predict_collectives import measured_cases
from windtunnel.validation.predict_mesh import is_exchange, measured_exchanges
from windtunnel.validation.tables import Table

SHIPPED = "points.json.z"
KEPT_OF_PATH = 48
"""Shapes of one kernel path on one chip that ship."""
SHIPPED_SOURCE = "points shipped with the package, thinned from the calibration tables"


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement.

    Attributes:
        family: as in ``Family``, or the collective's name. path: precision and variant, as ``bf16/block128``.
        dims: dimension → value; of collectives ranks, nodes and bytes.
        kernels: how many kernels the measured time covers. file, row: where it stands.
    """

    family: str
    chip: str
    library: str
    path: str
    dims: tuple[tuple[str, float], ...]
    seconds: float
    kernels: int
    file: str
    row: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What points must share to be compared by shape alone."""
        return self.family, self.chip, self.library, self.path


@dataclass(frozen=True, slots=True)
class Near:
    """The nearest point and how far it is: the largest factor between two dimensions, 1 for the same shape."""

    point: Point
    factor: float
    same_path: bool


def path_of(precision: str, variant: str) -> str:
    """``("fp8", "block128")`` → ``"fp8/block128"``."""
    return f"{precision}/{variant}" if variant else precision


@cache
def shipped_points() -> tuple[Point, ...]:
    """The points in the package."""
    packed = resources.files("windtunnel.validation").joinpath(SHIPPED).read_bytes()
    return tuple(_decoded(json.loads(zlib.decompress(packed))))


def points_of_folder(folder: Path) -> list[Point]:
    """All points of the kernel and collective tables of a folder; what cannot be read is left out."""
    points: list[Point] = []
    for table in tables_of_folder(folder):
        points += (point for rows in kernels_of(table) if not rows.host_s for point in _points(rows))
        points += collectives_of(table)
    return points


def tables_of_folder(folder: Path) -> Iterator[Table]:
    """The kernel and collective tables of a folder that can be read."""
    for path in sorted(folder.iterdir()):
        known = FORMATS.get(path.stem)
        if known is None or path.suffix not in (".csv", ".parquet"):
            continue
        if known.kind in (Kind.KERNEL, Kind.COLLECTIVE):
            file = read_measured(path)
            if not file.reason:
                yield file.table


def kernels_of(table: Table) -> Iterator[MeasuredRows]:
    """The measured kernels of a table; none of a table of collectives."""
    for reader in READERS.get(table.file, ()):
        try:
            yield from reader(table)
        except (WindtunnelError, ValueError, KeyError, IndexError, ZeroDivisionError, OverflowError):
            continue  # validate says what is wrong with such a table


def collectives_of(table: Table) -> Iterator[Point]:
    """The measured collectives of a table, which a table of kernels may have, too."""
    if FORMATS[table.file].kind is Kind.COLLECTIVE:
        yield from _of_collectives(table)
        return
    exchanges = is_exchange(table)
    for row, found in measured_exchanges(table.where(exchanges)) if exchanges.any() else ():
        dims = (("ranks", float(found.ranks)), ("nodes", 1.0), ("bytes", found.message_bytes))
        yield Point(found.kind.value, found.chip, "mccl", "", dims, found.seconds, 1, table.file, row)


def _of_collectives(table: Table) -> Iterator[Point]:
    for row, case, seconds in measured_cases(table):
        shape = case.shape
        dims = (("ranks", float(shape.ranks)), ("nodes", float(shape.nodes)), ("bytes", case.message_bytes))
        yield Point(case.kind.value, case.chip, case.library, "", dims, seconds, 1, table.file, row)


def _points(rows: MeasuredRows) -> Iterator[Point]:
    first = rows.parts[0]
    names = sorted(first.dims)
    columns = [first.dims[name].tolist() for name in names]
    path = path_of(first.precision, first.variant)
    cells = zip(rows.index.tolist(), rows.seconds.tolist(), *columns, strict=True)
    for row, seconds, *values in cells:
        if math.isfinite(seconds) and seconds > 0:
            dims = tuple((name, value) for name, value in zip(names, values, strict=True) if value > 0)
            family = str(first.family)
            yield Point(family, rows.chip, rows.library, path, dims, seconds, len(rows.parts), rows.file, row)


def nearest(
    points: Iterable[Point],
    *,
    family: str,
    chips: Sequence[str],
    path: str,
    dims: Sequence[tuple[str, float]],
    library: str = "",
) -> Near | None:
    """The nearest shape on the first of ``chips`` that has any: on the same kernel path, else on any of the family."""
    of_family = [point for point in points if point.family == family]
    chip = next((name for name in chips if any(point.chip == name for point in of_family)), "")
    on_chip = [point for point in of_family if point.chip == chip]
    same = [p for p in on_chip if p.path == path and (not library or p.library == library)]
    near_library = [p for p in on_chip if p.path == path and p.library.split("@")[0] == library.split("@")[0]]
    for candidates, same_path in ((same, True), (near_library, True), (on_chip, False)):
        if candidates:
            wanted = {name: value for name, value in dims if value > 0}
            best = min(candidates, key=lambda point: _distance(point, wanted))
            return Near(best, _largest_factor(best, wanted), same_path)
    return None


def _logs(point: Point, wanted: dict[str, float]) -> list[float]:
    return [
        abs(math.log(max(value, 1e-9) / wanted[name]))
        for name, value in point.dims
        if wanted.get(name, 0) > 0
    ]


def _distance(point: Point, wanted: dict[str, float]) -> float:
    missing = sum(1 for name, _ in point.dims if name not in wanted)
    return sum(log * log for log in _logs(point, wanted)) + missing


def _largest_factor(point: Point, wanted: dict[str, float]) -> float:
    return math.exp(max(_logs(point, wanted), default=0.0))


def thinned(points: Sequence[Point], kept: int = KEPT_OF_PATH) -> list[Point]:
    """Of each path a few points far apart in the logarithms of their dimensions, in the order of the tables."""
    groups: dict[tuple[str, str, str, str], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.key].append(point)
    found = []
    for _, members in sorted(groups.items()):
        found += [members[i] for i in sorted(_spread(members, kept))]
    return found


def _spread(members: Sequence[Point], kept: int) -> list[int]:
    """Farthest-point choice: start at the first, then always the one farthest from those chosen."""
    names = sorted({name for point in members for name, _ in point.dims})
    table = np.array([[math.log1p(dict(point.dims).get(name, 0.0)) for name in names] for point in members])
    chosen = [0]
    away: Floats = np.square(table - table[0]).sum(axis=1)
    while len(chosen) < min(kept, len(members)) and away.max() > 0:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.square(table - table[chosen[-1]]).sum(axis=1))
    return chosen


def write_points(folder: Path, target: Path) -> int:
    """Thin the tables of a folder into the shipped file; the same tables give the same bytes."""
    points = thinned(points_of_folder(folder))
    groups: dict[tuple[str, ...], list[Point]] = defaultdict(list)
    for point in points:
        names = tuple(name for name, _ in point.dims)
        groups[(*point.key, point.file, str(point.kernels), *names)].append(point)
    packed = [
        {"key": list(key), "points": [[p.row, _short(p.seconds), *(v for _, v in p.dims)] for p in members]}
        for key, members in sorted(groups.items())
    ]
    text = json.dumps(packed, separators=(",", ":"))
    target.write_bytes(zlib.compress(text.encode(), 9))
    return len(points)


def _short(seconds: float) -> float:
    return float(f"{seconds:.5g}")


def _decoded(packed: Sequence[dict[str, list[object]]]) -> Iterator[Point]:
    for group in packed:
        family, chip, library, path, file, kernels, *names = (str(word) for word in group["key"])
        for cells in group["points"]:
            assert isinstance(cells, list)
            row, seconds, *values = (float(cell) for cell in cells)
            dims = tuple(zip(names, values, strict=True))
            yield Point(family, chip, library, path, dims, seconds, int(kernels), file, int(row))


def main(arguments: Sequence[str]) -> int:
    """``python -m windtunnel.validation.explain.points DIR``: write the shipped file anew."""
    target = Path(str(resources.files("windtunnel.validation").joinpath(SHIPPED)))
    print(f"{write_points(Path(arguments[0]), target):,} points")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
