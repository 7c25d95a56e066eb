"""A whole chip hidden: fits made without any of its rows predict all of them, as a chip that nobody measured.

What borrowing costs and whether its intervals hold is seen on calibration tables alone this way; nothing is written
into the package. Families that are not asked for keep the package's fits, the hidden chip's own among them: hide all
families where modules of several are to be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from windtunnel.cost.fit_files import forget, reading
from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip, chip_names
from windtunnel.validation.calibrate.kernel_entries import write_entries
from windtunnel.validation.calibrate.kernel_families import STAGES, Stage
from windtunnel.validation.calibrate.kernel_fits import fit_stage
from windtunnel.validation.kernel_scores import Predicted, groups, predict_rows
from windtunnel.validation.kernels import rows_of_folder
from windtunnel.validation.measured import MeasuredRows
from windtunnel.validation.score import Score

ROWS_LEAST = 20
"""Single shapes out of notes say little about a kernel path."""


@dataclass(frozen=True, slots=True)
class HiddenGroup:
    """Rows of one table, library and kernel path: what was predicted for them, and what the data sheet says."""

    table: str
    library: str
    path: str
    score: Score
    roofline: Score


def hide_chip(data: Path, name: str, families: Sequence[str] = ()) -> list[HiddenGroup]:
    """Scores of the chip called ``name`` in the tables of ``data``, predicted without its rows.

    Raises WindtunnelError E110 for a chip that is not known, E953 where no table has rows of it.
    """
    hidden = chip(name)
    chips = {other: chip(other) for other in chip_names()}
    predicted: list[Predicted] = []
    with TemporaryDirectory() as folder, reading(Path(folder)):
        for stage in STAGES:
            rows = [] if families and stage.file not in families else rows_of_folder(data, stage.tables)
            seen = [row for row in rows if row.chip != hidden.name]
            mine = [row for row in rows if row.chip == hidden.name and _is_of(row, stage)]
            if not seen or not mine:
                continue
            write_entries(Path(folder) / f"{stage.file}.json", *fit_stage(stage, seen, chips))
            forget()
            predicted += [predict_rows(row, chips.__getitem__) for row in mine]
    if not predicted:
        raise WindtunnelError(
            "E953",
            f"no rows of {hidden.title} in {data}",
            hint="give the calibration tables, such as --data measurements/calibration",
        )
    scored = groups(predicted, "file", "library", "path")
    return [HiddenGroup(table, library, path, mine, roof) for (table, library, path), mine, roof in scored]


def _is_of(rows: MeasuredRows, stage: Stage) -> bool:
    return len(rows) >= ROWS_LEAST and rows.parts[0].family in stage.families
