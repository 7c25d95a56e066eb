"""A folder of measurements cut into pieces that can be predicted apart: cheap kinds of tables first.

Kernels and collectives are arrays, 400,000 rows in seconds; a training row is a simulated step, a serving row
simulated traffic. Serving tables are cut by model and card, whose rows share prices; others are one piece, since what
is scored of a training table depends on all its rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.validation.aliases import chip_name
from windtunnel.validation.folder import predict_table
from windtunnel.validation.formats import FORMATS, Kind
from windtunnel.validation.measured_files import read_measured
from windtunnel.validation.model_names import catalogue_name
from windtunnel.validation.nearest import Nearest
from windtunnel.validation.predict_training import TrainingRows
from windtunnel.validation.rows_file import Answers

CHEAP_FIRST = (
    Kind.KERNEL,
    Kind.COLLECTIVE,
    Kind.UNPREDICTED,
    Kind.TRAINING,
    Kind.S5000,
    Kind.STEP,
    Kind.SERVING,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one table, or all of it.

    Attributes:
        rows: their numbers in the file; None: all, with what is broken.
        nearest: folder in which the nearest measured shapes are looked up.
    """

    path: Path
    rows: tuple[int, ...] | None = None
    nearest: Path | None = None

    def __str__(self) -> str:
        return f"`{self.path.name}`" if self.rows is None else f"{len(self.rows)} rows of `{self.path.name}`"

    @property
    def slow(self) -> bool:
        """Whether its rows are simulated one by one."""
        known = FORMATS.get(self.path.stem)
        return known is not None and known.kind not in (Kind.KERNEL, Kind.COLLECTIVE, Kind.UNPREDICTED)


@dataclass(frozen=True, slots=True)
class Predicted:
    """A piece with the predictions and refusals of its rows. ``reason``: why nothing of its file can be used."""

    piece: Piece
    reason: str
    answers: tuple[Answers, ...]


def pieces_of(paths: Iterable[Path], nearest: Path | None = None) -> list[Piece]:
    """The pieces of some tables, cheap ones first."""

    def order(path: Path) -> tuple[int, str]:
        known = FORMATS.get(path.stem)
        return CHEAP_FIRST.index(known.kind if known else Kind.UNPREDICTED), path.name

    return [piece for path in sorted(paths, key=order) for piece in _cut(path, nearest)]


def _cut(path: Path, nearest: Path | None) -> list[Piece]:
    known = FORMATS.get(path.stem)
    if known is None or known.kind is not Kind.SERVING:
        return [Piece(path, None, nearest)]
    file = read_measured(path)
    if file.reason or file.broken or not len(file.table):
        return [Piece(path, None, nearest)]
    groups: dict[tuple[str, str], list[int]] = {}
    cells = zip(*(file.table.text(name).tolist() for name in ("model", "gpu")), strict=True)
    for row, (model, gpu) in zip(file.table.index.tolist(), cells, strict=True):
        groups.setdefault((catalogue_name(model) or model, chip_name(gpu) or gpu), []).append(row)
    return [Piece(path, tuple(rows), nearest) for _, rows in sorted(groups.items())]


class _Known:
    """What pieces share that one process predicts."""

    def __init__(self) -> None:
        self.training = TrainingRows()
        self.nearest: dict[Path, Nearest] = {}

    def near(self, folder: Path | None) -> Nearest | None:
        if folder is not None and folder not in self.nearest:
            self.nearest[folder] = Nearest(folder)
        return None if folder is None else self.nearest[folder]


_known = _Known()


def predict_piece(piece: Piece) -> Predicted:
    """The predictions and refusals of its rows."""
    file = read_measured(piece.path)
    if piece.rows is not None:
        file = file.where(np.isin(file.table.index, piece.rows))
    cheap = file.format is not None and file.format.kind in (Kind.KERNEL, Kind.COLLECTIVE)
    near = _known.near(piece.nearest) if cheap else None
    found = predict_table(file, _known.training, nearest=near)
    return Predicted(piece, file.reason, tuple(part for part in found if len(part)))
