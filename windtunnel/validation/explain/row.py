"""Why a row of a measured table is predicted as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip
from windtunnel.validation.explain.collective import explain_shaped
from windtunnel.validation.explain.kernel import explain_kernel
from windtunnel.validation.explain.memory import MemoryWhy, explain_memory
from windtunnel.validation.explain.operations import StepWhy, Why
from windtunnel.validation.explain.points import Point
from windtunnel.validation.explain.serving import explain_serving
from windtunnel.validation.explain.training import explain_training
from windtunnel.validation.folder import files_of, predict_file
from windtunnel.validation.formats import Kind
from windtunnel.validation.kernel_scores import asked_library
from windtunnel.validation.kernels import READERS
from windtunnel.validation.measured_files import MeasuredFile, read_measured
from windtunnel.validation.predict_collectives import cases_of, network_of
from windtunnel.validation.predict_s5000 import run_of_table
from windtunnel.validation.predict_serving import served_step
from windtunnel.validation.rows_file import Answers
from windtunnel.validation.tables import Table


@dataclass(frozen=True, slots=True)
class TargetAnswer:
    """One predicted column of the row; None where there is no prediction or no measurement."""

    target: str
    unit: str
    prediction: float | None
    low: float | None
    high: float | None
    measured: float | None
    baseline: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class RowWhy:
    """One row: what it states, what is predicted, and the parts that the prediction is made of."""

    file: str
    row: int
    stated: tuple[tuple[str, str], ...]
    answers: tuple[TargetAnswer, ...]
    parts: tuple[Why, ...]
    step: StepWhy | None
    memory: MemoryWhy | None = None


def explain_row(folder: Path, name: str, points: Sequence[Point], *, top: int) -> RowWhy:
    """Explain ``FILE:ROW`` of a folder; ROW is the row's number from 0 or its ``row_id``.

    Raises:
        WindtunnelError: E930, E953, no such folder or table; E963, no such row.
    """
    stem, _, wanted = name.rpartition(":")
    if not stem:
        raise _no_row(name, "a row is named FILE:ROW")
    path = files_of(folder, Path(stem).stem)[0]
    file = read_measured(path)
    table = _one_row(file, wanted)
    answers = list(predict_file(MeasuredFile(file.name, file.format, table)))
    parts: tuple[Why, ...] = ()
    step = memory = None
    kind = file.format.kind if file.format else None
    if kind is Kind.KERNEL:
        parts = _kernel_parts(table, points)
    elif kind is Kind.COLLECTIVE:
        parts = tuple(
            explain_shaped(
                case.kind, case.message_bytes, network_of(case).links, case.shape, points,
                library=case.library, engine=case.engine, traffic=case.traffic,
            )
            for case in cases_of(table)
        )  # fmt: skip
    elif kind is Kind.TRAINING and any(not part.reason for part in answers):
        step = explain_training(table, points, top=top)
        if any(part.unit == "GiB" and not part.reason for part in answers):
            memory = explain_memory(table)
    elif kind is Kind.SERVING and any(not part.reason for part in answers):
        step = explain_serving(*served_step(table), points, top=top)
    elif kind is Kind.S5000:
        parts = _kernel_parts(table, points)
        run = run_of_table(table)
        step = (
            None if run is None else explain_serving(run.deployment, run.batch, run.assumed, points, top=top)
        )
    stated = tuple((column, cell) for column in table.columns if (cell := _cell(table, column)))
    shown = tuple(_answer(part, i) for part in answers for i in range(len(part)))
    return RowWhy(file.name, int(table.index[0]), stated, shown, parts, step, memory)


def _one_row(file: MeasuredFile, wanted: str) -> Table:
    table = file.table
    if file.reason:
        raise _no_row(f"{file.name}:{wanted}", file.reason)
    mask = table.text("row_id") == wanted
    if not mask.any() and wanted.isdigit():
        mask = table.index == int(wanted)
    if not mask.any():
        last = int(table.index[-1]) if len(table) else -1
        raise _no_row(f"{file.name}:{wanted}", f"rows go from 0 to {last}")
    return table.where(np.asarray(mask & (np.cumsum(mask) == 1)))


def _no_row(name: str, why: str) -> WindtunnelError:
    return WindtunnelError(
        "E963",
        f"there is no row `{name}`: {why}",
        hint="windtunnel explain --data DIR --row train_torchtitan.csv:0",
    )


def _kernel_parts(table: Table, points: Sequence[Point]) -> tuple[Why, ...]:
    found: list[Why] = []
    for reader in READERS[table.file]:
        try:
            for rows in reader(table):
                library = asked_library(rows.library)
                found += [
                    explain_kernel(p, chip(rows.chip), points, library=library, allow_tf32=False)
                    for p in rows.parts
                ]
        except (WindtunnelError, ValueError, KeyError, IndexError, ZeroDivisionError):
            continue
    return tuple(found)


def _cell(table: Table, column: str) -> str:
    text = str(table.text(column)[0])
    return "" if text == "nan" else text.removesuffix(".0")


def _answer(part: Answers, number: int) -> TargetAnswer:
    def known(column: Floats) -> float | None:
        return float(column[number]) if np.isfinite(column[number]) else None

    return TargetAnswer(
        part.target,
        part.unit,
        known(part.value),
        known(part.low),
        known(part.high),
        known(part.measured),
        known(part.baseline),
        part.reason,
    )
