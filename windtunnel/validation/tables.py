"""Measured tables as columns: CSV and Parquet files with the same names and columns, read alike."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from windtunnel.cost.kernel_time import Floats, Ints
from windtunnel.errors import WindtunnelError

Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Table:
    """One file: every column as text or number, and the row numbers these rows have in the file."""

    file: str
    columns: dict[str, npt.NDArray[np.generic]]
    index: Ints

    def __len__(self) -> int:
        return len(self.index)

    def has(self, name: str) -> bool:
        """Whether the file has the column."""
        return name in self.columns

    def number(self, name: str, default: float = np.nan) -> Floats:
        """A column as numbers; blanks and absent columns are ``default``."""
        if name not in self.columns:
            return np.full(len(self), default)
        column = self.columns[name]
        if column.dtype.kind in "fiub":
            values = column.astype(np.float64)
        else:
            values = np.array([_number(cell) for cell in column.tolist()], dtype=np.float64)
        return np.where(np.isnan(values), default, values)

    def text(self, name: str) -> Texts:
        """A column as text; blanks and absent columns are empty."""
        if name not in self.columns:
            return np.full(len(self), "", dtype=np.str_)
        return self.columns[name].astype(np.str_)

    def where(self, mask: npt.NDArray[np.bool_]) -> Table:
        """The rows that ``mask`` selects."""
        return Table(
            self.file, {name: column[mask] for name, column in self.columns.items()}, self.index[mask]
        )

    def groups(self, *names: str) -> list[tuple[tuple[str, ...], Table]]:
        """The rows by the distinct values of some columns, in sorted order of those values."""
        keys = np.stack([self.text(name).astype(np.str_) for name in names], axis=1)
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        return [
            (tuple(str(cell) for cell in distinct[number]), self.where(inverse == number))
            for number in range(len(distinct))
        ]


def read_table(path: Path) -> Table:
    """Read one CSV or Parquet file. Raises WindtunnelError E901 when it cannot be read."""
    try:
        columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, ValueError, UnicodeDecodeError) as reason:
        raise WindtunnelError(
            "E951",
            f"cannot read the table {path.name}",
            hint="tables are CSV with a header line, or Parquet",
            values={"path": path, "reason": reason},
        ) from None
    rows = len(next(iter(columns.values()))) if columns else 0
    return Table(path.stem, columns, np.arange(rows, dtype=np.int64))


def _read_csv(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        names = next(reader)
        rows = [row for row in reader if row]
    ragged = next((number for number, row in enumerate(rows) if len(row) != len(names)), None)
    if ragged is not None:
        raise ValueError(f"line {ragged + 2} has {len(rows[ragged])} cells, the header {len(names)}")
    return {name: np.array([row[i] for row in rows], dtype=np.str_) for i, name in enumerate(names)}


def _read_parquet(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise WindtunnelError(
            "E952",
            f"reading {path.name} needs pyarrow",
            hint="pip install 'windtunnel[data]'",
        ) from None
    table = parquet.read_table(path)
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for name in table.column_names:
        column = table[name]
        numbers = (
            column.to_numpy() if str(column.type).startswith(("int", "uint", "float", "double")) else None
        )
        if numbers is not None and numbers.dtype.kind in "iuf":  # blanks are NaN
            columns[name] = numbers.astype(np.float64)
            continue
        cells = column.to_pylist()
        if any(isinstance(cell, str) for cell in cells):
            columns[name] = np.array(["" if cell is None else str(cell) for cell in cells], dtype=np.str_)
        else:
            columns[name] = np.array(
                [np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64
            )
    return columns


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
