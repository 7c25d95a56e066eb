"""A folder of measurements, every file predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.validation.formats import FORMATS, Format, Kind
from windtunnel.validation.measured_files import Broken, MeasuredFile, ids_of, read_measured
from windtunnel.validation.nearest import Nearest
from windtunnel.validation.predict_collectives import predict_collectives
from windtunnel.validation.predict_kernels import predict_kernels
from windtunnel.validation.predict_mesh import is_exchange, predict_mesh
from windtunnel.validation.predict_s5000 import is_run, predict_runs, predict_s5000
from windtunnel.validation.predict_serving import predict_serving
from windtunnel.validation.predict_training import TrainingRows
from windtunnel.validation.reasons import NOT_MODELLED
from windtunnel.validation.rows_file import Answers, refused

Progress = Callable[[str], None]
SUFFIXES = (".csv", ".parquet")


def files_of(folder: Path, only: str = "*") -> list[Path]:
    """The tables in ``folder`` whose name matches. Raises WindtunnelError E930 and E953."""
    if not folder.is_dir():
        raise WindtunnelError(
            "E930",
            f"`{folder}` is not a folder",
            hint="give the folder that holds the tables, such as --data measurements/validation",
        )
    found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    chosen = [path for path in found if fnmatchcase(path.name, only) or fnmatchcase(path.stem, only)]
    if not any(path.stem in FORMATS for path in chosen):
        raise WindtunnelError(
            "E953",
            f"no measured tables in `{folder}`" + (f" match `{only}`" if found and only != "*" else ""),
            hint="tables are known by their file names, such as kernel_aic_gemm.parquet or train_torchtitan.csv",
            values={"tables there": ", ".join(path.name for path in found[:12]) or "none"},
        )
    return chosen


def predict_folder(
    folder: Path,
    only: str = "*",
    progress: Progress = lambda state: None,
    nearest: Nearest | None = None,
) -> Iterator[tuple[MeasuredFile, list[Answers]]]:
    """Each file with the predictions and refusals of its rows. Raises E930 and E953, nothing for bad files.

    ``nearest``: where the nearest measured shapes are looked up, as a baseline.
    """
    training = TrainingRows()
    for path in files_of(folder, only):
        progress(path.name)
        file = read_measured(path)
        yield file, list(predict_table(file, training, progress, nearest))


def predict_file(file: MeasuredFile) -> Iterator[Answers]:
    """The predictions and refusals of one file's rows."""
    yield from predict_table(file, TrainingRows())


def predict_table(
    file: MeasuredFile,
    training: TrainingRows,
    progress: Progress = lambda state: None,
    nearest: Nearest | None = None,
) -> Iterator[Answers]:
    """The same, one table after another: ``training`` keeps the steps that several of them have."""
    known = file.format
    if known is None:
        return
    for broken in file.broken:
        yield _refused(file, known, broken)
    table = file.table
    if file.reason or known.kind is Kind.UNPREDICTED:
        everything = Broken(table.index, ids_of(table), file.reason or f"{NOT_MODELLED}: {known.reason}")
        yield _refused(file, known, everything)
    elif known.kind is Kind.KERNEL:
        exchanges, runs = is_exchange(table), is_run(table)
        apart = exchanges | runs
        yield from predict_kernels(table.where(~apart) if apart.any() else table, nearest)
        yield from predict_mesh(table.where(exchanges))
        yield from predict_runs(table.where(runs))
    elif known.kind is Kind.COLLECTIVE:
        yield from predict_collectives(table, nearest)
    elif known.kind is Kind.STEP:
        from windtunnel.validation.predict_steps import predict_steps  # needs PyTorch

        yield from predict_steps(table, lambda done, of: progress(f"{file.name} {done} of {of}"))
    elif known.kind is Kind.S5000:
        yield from predict_s5000(table, lambda done, of: progress(f"{file.name} {done} of {of}"))
    elif known.kind is Kind.SERVING:
        yield from predict_serving(table, lambda done, of: progress(f"{file.name} {done} of {of}"))
    else:
        yield from training.predict(table, lambda done, of: progress(f"{file.name} {done} of {of}"))


def _refused(file: MeasuredFile, known: Format, broken: Broken) -> Answers:
    nothing = np.full(len(broken.row), np.nan)
    return refused(file.table.file, known.target or "all", broken.row, broken.row_id, nothing, broken.reason)
