"""Predict every row of the kernel tables and compare: errors, bias and coverage, beside two plain baselines.

Baselines: ``roofline``, the largest of FLOPs ÷ peak and bytes ÷ bandwidth of the data sheet; ``nearest``, the
measured time of the nearest shape in the calibration tables (same chip and kernel path, nearest in logarithms of
all dimensions), scaled by nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.kernel_time import Floats, Ints
from windtunnel.cost.model import CostModel, Settings
from windtunnel.cost.peaks import vector_peak
from windtunnel.errors import WindtunnelError
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip
from windtunnel.validation.kernels import kernel_files, measured_rows
from windtunnel.validation.measured import MeasuredRows
from windtunnel.validation.score import Score, score

ChipOf = Callable[[str], Chip]


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of some rows of one table; arrays of equal length. ``reason`` says why there is none."""

    file: str
    chip: str
    library: str
    path: str
    index: Ints
    seconds: Floats
    low_s: Floats
    high_s: Floats
    measured_s: Floats
    roofline_s: Floats
    reason: str = ""


def predict_folder(folder: Path, chip_of: ChipOf, stems: Sequence[str] = ()) -> Iterator[Predicted]:
    """Predictions for every kernel table in ``folder``; measured columns are carried along, never used."""
    for path in kernel_files(folder):
        if not stems or path.stem in stems:
            for rows in measured_rows(path):
                yield predict_rows(rows, chip_of)


def predict_rows(rows: MeasuredRows, chip_of: ChipOf) -> Predicted:
    """Predict the rows of one chip and kernel path."""
    nothing = np.full(len(rows), np.nan)
    first = rows.parts[0]
    path = f"{first.family}/{first.precision}" + (f"/{first.variant}" if first.variant else "")
    try:
        chip = chip_of(rows.chip)
        model = CostModel(
            chip, Settings(allow_tf32=False, library=asked_library(rows.library), repeated=True)
        )
        prices = [model.price(part) for part in rows.parts]
    except WindtunnelError as refusal:
        return Predicted(
            rows.file, rows.chip, rows.library, path, rows.index,
            nothing, nothing, nothing, rows.seconds, nothing, refusal.what,
        )  # fmt: skip
    return Predicted(
        rows.file, rows.chip, rows.library, path, rows.index,
        np.maximum(np.sum([item.seconds for item in prices], axis=0), rows.host_s),
        np.maximum(np.sum([item.low_s for item in prices], axis=0), rows.host_s),
        np.maximum(np.sum([item.high_s for item in prices], axis=0), rows.host_s),
        rows.seconds, np.sum([roofline(part, chip) for part in rows.parts], axis=0),
    )  # fmt: skip


def asked_library(name: str) -> str:
    """The library to ask for: rows that called PyTorch get what programs get."""
    return "" if name.split("@")[0] == "torch" else name


def roofline(batch: Batch, chip: Chip) -> Floats:
    """The largest of FLOPs ÷ peak and bytes ÷ bandwidth, plus the kernel floor: what a data sheet alone says."""
    peak = chip.peak_flops.get(batch.precision, vector_peak(chip)).value
    if batch.family is Family.HOST_COPY:
        return np.asarray(batch.bytes_read / chip.pcie_bytes_per_s.value + chip.kernel_floor_s.value)
    memory = batch.bytes_moved / chip.memory_bytes_per_s.value
    causal = np.where(batch.dim("causal") > 0, 0.5, 1.0)
    return np.asarray(np.maximum(batch.flops * causal / peak, memory) + chip.kernel_floor_s.value)


def groups(predictions: Sequence[Predicted], *fields: str) -> list[tuple[tuple[str, ...], Score, Score]]:
    """Scores of the model and of the roofline by the given fields of ``Predicted``, sorted."""
    keys = sorted({tuple(str(getattr(item, name)) for name in fields) for item in predictions})
    found = []
    for key in keys:
        members = [item for item in predictions if tuple(str(getattr(item, name)) for name in fields) == key]
        columns = [
            np.concatenate([getattr(item, name) for item in members])
            for name in ("seconds", "measured_s", "low_s", "high_s", "roofline_s")
        ]
        good = np.isfinite(columns[0]) & np.isfinite(columns[1]) & (columns[1] > 0)
        if good.any():
            seconds, measured, low, high, roof = (column[good] for column in columns)
            found.append((key, score(seconds, measured, low, high), score(roof, measured)))
    return found


def table_of(scored: Sequence[tuple[tuple[str, ...], Score, Score]]) -> str:
    """The scores as text, one line a group."""
    names = ("rows", "median", "p90", "t-med", "t-p90", "bias", "cover", "roofline")
    widths = (7, 7, 7, 7, 7, 7, 6, 8)
    lines = [f"{'group':58} " + " ".join(f"{name:>{width}}" for name, width in zip(names, widths))]
    for key, mine, roof in scored:
        name = " ".join(key)
        lines.append(
            f"{name:58.58} {mine.rows:7d} {mine.median:7.1%} {mine.p90:7.1%} {mine.time_median:7.1%} "
            f"{mine.time_p90:7.1%} {mine.bias:+7.1%} {mine.coverage:6.0%} {roof.time_median:8.1%}"
        )
    return "\n".join(lines)
