"""Predictions of rows, in columns, and the file that lists them: one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from windtunnel.cost.kernel_time import Floats, Ints

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """Rows of one file and one target that share family, library and chip; all arrays of one length.

    Attributes:
        row: number of the row in its file, from 0. row_id: the file's own name of it, empty where it has none.
        target: the file's column that is predicted. unit: of value, low, high, measured, baseline.
        value, low, high: prediction and 80 % interval; NaN where refused.
        measured: NaN where blank. baseline: what a data sheet alone says; NaN where there is none.
        scored: false where a newer release repeats the configuration.
        reason: why these rows are refused; empty for predictions.
        nearest: what the nearest measured shape took, where it was looked up.
    """

    file: str
    family: str
    library: str
    chip: str
    target: str
    unit: str
    row: Ints
    row_id: tuple[str, ...]
    value: Floats
    low: Floats
    high: Floats
    measured: Floats
    baseline: Floats
    scored: Flags
    reason: str = ""
    nearest: Floats | None = None

    def __len__(self) -> int:
        return len(self.row)


def refused(
    file: str,
    target: str,
    row: Ints,
    row_id: tuple[str, ...],
    measured: Floats,
    reason: str,
    *,
    unit: str = "s",
    family: str = "",
    library: str = "",
    chip: str = "",
) -> Answers:
    """Rows without a prediction, and why."""
    nothing = np.full(len(row), np.nan)
    scored = np.ones(len(row), dtype=np.bool_)
    return Answers(
        file, family, library, chip, target, unit, row, row_id, nothing, nothing, nothing, measured, nothing,
        scored, reason,
    )  # fmt: skip


def lines(answers: Iterable[Answers]) -> Iterator[str]:
    """The rows file: file, row, row_id, target, unit, prediction, low, high, measured, reason."""
    for part in answers:
        columns = (part.row, part.value, part.low, part.high, part.measured)
        cells = zip(*(column.tolist() for column in columns), part.row_id, strict=True)
        for row, value, low, high, measured, row_id in cells:
            record = {
                "file": part.file,
                "row": row,
                "row_id": row_id or None,
                "target": part.target,
                "unit": part.unit,
                "prediction": _finite(value),
                "low": _finite(low),
                "high": _finite(high),
                "measured": _finite(measured),
                "reason": part.reason or None,
            }
            yield json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
