"""Reading a file of measurements without trusting it: what is broken is set apart, the rest is kept."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from windtunnel.cost.kernel_time import Ints
from windtunnel.errors import WindtunnelError
from windtunnel.validation.formats import FORMATS, Format
from windtunnel.validation.reasons import MISSING_COLUMNS, UNKNOWN_FILE, UNREADABLE
from windtunnel.validation.tables import Table, read_table


@dataclass(frozen=True, slots=True)
class Broken:
    """Rows of a file that cannot be read, and why."""

    row: Ints
    row_id: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """One file: the rows that can be read, and the others. ``reason``: why nothing of it can be used."""

    name: str
    format: Format | None
    table: Table
    broken: tuple[Broken, ...] = ()
    reason: str = ""

    def where(self, mask: npt.NDArray[np.bool_]) -> MeasuredFile:
        """The rows that ``mask`` selects of those that can be read."""
        return MeasuredFile(self.name, self.format, self.table.where(mask), (), self.reason)


def read_measured(path: Path) -> MeasuredFile:
    """Read one file. Never raises: what cannot be used has a reason with its code."""
    known = FORMATS.get(path.stem)
    empty = Table(path.stem, {}, np.zeros(0, dtype=np.int64))
    if known is None:
        return MeasuredFile(
            path.name, None, empty, reason=f"{UNKNOWN_FILE}: no table is known by this file name"
        )
    try:
        table, ragged = _read_csv(path) if path.suffix == ".csv" else (read_table(path), ())
    except (OSError, ValueError, csv.Error) as error:
        return MeasuredFile(path.name, known, empty, reason=f"{UNREADABLE}: {error}")
    except WindtunnelError as error:
        cause = error.values.get("reason", error.hint)
        return MeasuredFile(path.name, known, empty, reason=f"{error.code}: {error.what}: {cause}")
    except Exception as error:  # pyarrow has its own family of errors
        return MeasuredFile(path.name, known, empty, reason=f"{UNREADABLE}: {error}")
    missing = [name for name in known.required if not table.has(name)]
    if missing:
        absent = ", ".join(missing)
        return MeasuredFile(
            path.name, known, table, ragged, f"{MISSING_COLUMNS}: the file lacks the columns {absent}"
        )
    kept, bad = _positive(table, known)
    return MeasuredFile(path.name, known, kept, (*ragged, *bad))


def ids_of(table: Table) -> tuple[str, ...]:
    """The file's own names of its rows; empty where it has none."""
    return tuple(table.text("row_id").tolist())


def _read_csv(path: Path) -> tuple[Table, tuple[Broken, ...]]:
    """The rows as long as the header; the others are broken."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        names = next(reader, [])
        rows = [row for row in reader if row]
    if not names:
        raise ValueError("the file is empty")
    if len(set(names)) != len(names):
        raise ValueError("two columns have the same name")
    whole = np.array([len(row) == len(names) for row in rows], dtype=np.bool_)
    columns: dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]] = {
        name: np.array([row[i] for row, good in zip(rows, whole.tolist()) if good], dtype=np.str_)
        for i, name in enumerate(names)
    }
    odd = np.flatnonzero(~whole)
    broken = (Broken(odd, ("",) * len(odd), f"{UNREADABLE}: more or fewer cells than the header"),)
    return Table(path.stem, columns, np.flatnonzero(whole)), broken if len(odd) else ()


def _positive(table: Table, known: Format) -> tuple[Table, tuple[Broken, ...]]:
    """The rows whose sizes are numbers above zero; the others by the first column that is not."""
    broken = []
    good = np.ones(len(table), dtype=np.bool_)
    for name in known.positive:
        values = table.number(name)
        bad = good & ~(np.isfinite(values) & (values > 0))
        if bad.any():
            rows = table.where(bad)
            reason = f"{UNREADABLE}: `{name}` is not a number above zero"
            broken.append(Broken(rows.index, ids_of(rows), reason))
            good &= ~bad
    return (table if good.all() else table.where(good)), tuple(broken)
