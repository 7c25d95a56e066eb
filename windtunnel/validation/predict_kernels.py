"""Every row of a kernel table as prediction or refusal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip
from windtunnel.validation.aliases import chip_name, precision_of
from windtunnel.validation.formats import FORMATS
from windtunnel.validation.kernel_scores import predict_rows
from windtunnel.validation.kernels import READERS
from windtunnel.validation.measured import MeasuredRows
from windtunnel.validation.measured_files import ids_of
from windtunnel.validation.reasons import NOT_MODELLED, UNKNOWN_NAME, UNREADABLE
from windtunnel.validation.rows_file import Answers, refused
from windtunnel.validation.tables import Table

if TYPE_CHECKING:
    from windtunnel.validation.nearest import Nearest

_CHIP_COLUMNS = ("gpu_system", "gpu", "device", "system")
_PRECISION_COLUMNS = ("dtype", "precision", "attn_dtype", "moe_dtype", "mla_dtype")
_NO_TIME_S = 1e30
"""Longer than any kernel: what a size beyond all bounds gives."""

known_chip = cache(chip)


def predict_kernels(table: Table, nearest: Nearest | None = None) -> Iterator[Answers]:
    """Predictions of all rows that a reader takes, then the others with a reason. Never raises."""
    target = FORMATS[table.file].target or "seconds"
    ids = ids_of(table)
    place = {int(number): position for position, number in enumerate(table.index.tolist())}
    taken = np.zeros(len(table), dtype=np.bool_)
    failures = []
    for reader in READERS[table.file] if len(table) else ():
        try:
            for rows in reader(table):
                if len(rows):
                    positions = np.array([place[number] for number in rows.index.tolist()], dtype=np.int64)
                    taken[positions] = True
                    yield from _answers(rows, tuple(ids[i] for i in positions.tolist()), target, nearest)
        except (WindtunnelError, ValueError, KeyError, IndexError, ZeroDivisionError, OverflowError) as error:
            failures.append(f"{UNREADABLE}: the table cannot be read: {error}")
    if not taken.all():
        yield from _left(table.where(~taken), target, failures)


def _answers(
    rows: MeasuredRows, ids: tuple[str, ...], target: str, nearest: Nearest | None
) -> Iterator[Answers]:
    with np.errstate(all="ignore"):
        found = predict_rows(rows, known_chip)
        looked_up = None if nearest is None else nearest.kernels(rows)
    if found.reason:
        yield refused(
            found.file, target, found.index, ids, found.measured_s, found.reason,
            family=found.path, library=found.library, chip=found.chip,
        )  # fmt: skip
        return
    good = np.isfinite(found.seconds) & (found.seconds > 0) & (found.seconds < _NO_TIME_S)
    for mask, reason in ((good, ""), (~good, f"{UNREADABLE}: a size of the row is missing or out of range")):
        if not mask.any():
            continue
        chosen = tuple(ids[i] for i in np.flatnonzero(mask).tolist())
        values = [
            column[mask] if not reason else np.full(int(mask.sum()), np.nan)
            for column in (found.seconds, found.low_s, found.high_s)
        ]
        yield Answers(
            found.file, found.path, found.library, found.chip, target, "s", found.index[mask], chosen,
            values[0], values[1], values[2], found.measured_s[mask], found.roofline_s[mask],
            np.ones(int(mask.sum()), dtype=np.bool_), reason, None if looked_up is None else looked_up[mask],
        )  # fmt: skip


def _left(table: Table, target: str, failures: list[str]) -> Iterator[Answers]:
    """Rows that no reader takes: by what they name that is not known."""
    named = [name for name in (*_CHIP_COLUMNS, *_PRECISION_COLUMNS) if table.has(name)]
    for cells, rows in table.groups(*named) if named else [((), table)]:
        reason = _reason(dict(zip(named, cells, strict=True)), failures)
        yield refused(table.file, target, rows.index, ids_of(rows), rows.number(target), reason)


def _reason(named: dict[str, str], failures: list[str]) -> str:
    for name, spelling in named.items():
        if name in _CHIP_COLUMNS and chip_name(spelling) is None:
            return f"{UNKNOWN_NAME}: accelerator `{spelling}` is not in the catalogue"
        if name in _PRECISION_COLUMNS and precision_of(spelling) is None:
            return f"{UNKNOWN_NAME}: precision `{spelling}` is not known"
    return failures[0] if failures else f"{NOT_MODELLED}: no model of this kernel or test"
