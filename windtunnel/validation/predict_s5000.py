"""Rows of S5000 tables that say in words what was run, as prediction or refusal: one metric a row.

Serving runs on the native engine, training on the recipes, kernels on the cost model; device queries and vendor
statements are inputs. A configuration that was measured before and after a change of the software is scored once,
after it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured_files import ids_of
from windtunnel.validation.moore_threads_words import Said, cards_of, said
from windtunnel.validation.predict_kernels import predict_kernels
from windtunnel.validation.reasons import INCOMPLETE, NOT_MODELLED, UNKNOWN_NAME, UNREADABLE
from windtunnel.validation.rows_file import Answers, Flags, refused
from windtunnel.validation.s5000_runs import Figure, Incomplete, Run, figures_of, run_of
from windtunnel.validation.s5000_training import gaps, step_of
from windtunnel.validation.tables import Table

Progress = Callable[[int, int], None]
_KERNELS = ("kernel", "micro")
_RUNS = ("inference", "training")
_UNITS = {
    "output_tokens_per_s": "tokens/s",
    "requests_per_s": "1/s",
    "tpot": "s",
    "itl": "s",
    "ttft": "s",
    "e2e": "s",
    "step_seconds": "s",
}
_SCALES = {"ms": 1e-3, "us": 1e-6}
"""Units of measured cells, in those of predictions."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of words. ``target``: the column that is predicted, of tables that have one for all; ``closed``: clients
    send one request after another (a concurrency), not some prompts at once.
    """

    position: int
    category: str
    device: str
    cards: int
    said: Said
    closed: bool
    metric: str
    target: str
    measured: float


def is_run(table: Table) -> Flags:
    """Rows of ``s5000_measured`` that are runs of whole models."""
    if table.file != "s5000_measured":
        return np.zeros(len(table), dtype=np.bool_)
    return np.isin(table.text("group"), _RUNS)


def predict_s5000(table: Table, progress: Progress = lambda done, of: None) -> Iterator[Answers]:
    """``s5000_end_to_end``: predictions by category, and the others with a reason. Never raises."""
    kernels = np.isin(table.text("category"), _KERNELS)
    yield from predict_kernels(table.where(kernels))
    yield from predict_runs(table.where(~kernels), progress)


def predict_runs(table: Table, progress: Progress = lambda done, of: None) -> Iterator[Answers]:
    """Rows of whole models, of either table. Never raises."""
    known: dict[object, dict[str, Figure] | str] = {}
    failed: dict[tuple[str, str], list[_Row]] = defaultdict(list)
    found: dict[tuple[str, str, str], list[tuple[_Row, Figure]]] = defaultdict(list)
    for row in _rows(table):
        progress(row.position, len(table))
        answer = _answer(row, known)
        if isinstance(answer, str):
            failed[row.target, answer].append(row)
        else:
            found[row.target, row.metric, chip_name(row.device) or row.device].append((row, answer))
    latest = _latest([row for members in found.values() for row, _ in members])
    ids = ids_of(table)
    for (target, metric, chip), members in sorted(found.items()):
        rows = [row for row, _ in members]
        training = rows[0].category == "training"
        value, low, high, baseline = (
            np.array([getattr(figure, name) for _, figure in members])
            for name in ("value", "low", "high", "baseline")
        )
        yield Answers(
            table.file, "training step in words" if training else "serving in words",
            "megatron" if training else "vllm-musa", chip, target, _UNITS[metric],
            table.index[[row.position for row in rows]], tuple(ids[row.position] for row in rows),
            value, low, high, np.array([row.measured for row in rows]), baseline,
            np.array([row.position in latest for row in rows]),
        )  # fmt: skip
    for (target, reason), rows in sorted(failed.items()):
        positions = [row.position for row in rows]
        own = tuple(ids[i] for i in positions)
        cells = np.array([row.measured for row in rows])
        yield refused(table.file, target, table.index[positions], own, cells, reason, unit="")


def run_of_table(table: Table) -> Run | None:
    """The deployment of the one row of ``table``; None where it is no row of serving that can be rebuilt."""
    row = next(_rows(table))
    chip = chip_name(row.device)
    if row.category != "inference" or chip is None:
        return None
    try:
        return run_of(row.said, chip, row.cards, row.closed)
    except (Incomplete, WindtunnelError):
        return None


def _rows(table: Table) -> Iterator[_Row]:
    tall = table.has("category")
    names = ("category", "device", "workload", "configuration", "metric", "unit")
    if not tall:
        names = ("group", "device", "metric", "shape", "metric", "unit")
    columns = [table.text(name).tolist() for name in names]
    numbers = zip(table.number("num_devices", 0.0).tolist(), table.number("value").tolist(), strict=True)
    cells = zip(*columns, numbers, strict=True)
    for position, (category, device, workload, configuration, metric, unit, (cards, value)) in enumerate(
        cells
    ):
        card, stated = cards_of(device)
        if not tall:
            metric = "step_seconds" if category == "training" else "tpot"
        yield _Row(
            position, category, card, int(cards) or stated, said(workload, configuration),
            "concurrency" in configuration, metric, metric if tall else "seconds",
            value * _SCALES.get(unit.split(" ")[0], 1.0),
        )  # fmt: skip


def _answer(row: _Row, known: dict[object, dict[str, Figure] | str]) -> Figure | str:
    """The figure of a row, or the reason why there is none; equal configurations are run once."""
    if row.category == "specification":
        return f"{NOT_MODELLED}: a property of the card, which is an input"
    if row.category not in _RUNS:
        return f"{NOT_MODELLED}: no model of rows of the kind `{row.category}`"
    chip = chip_name(row.device)
    if chip is None:
        return f"{UNKNOWN_NAME}: accelerator `{row.device}` is not in the catalogue"
    key = (replace(row.said, earlier=False), chip, row.cards, row.closed, row.category)
    if key not in known:
        known[key] = _figures(row, chip)
    figures = known[key]
    if isinstance(figures, str):
        return figures
    return figures.get(row.metric) or f"{NOT_MODELLED}: no model of the metric `{row.metric}`"


def _figures(row: _Row, chip: str) -> dict[str, Figure] | str:
    try:
        if row.category == "training":
            return _step(row, chip)
        return figures_of(run_of(row.said, chip, row.cards, row.closed))
    except Incomplete as error:
        return f"{INCOMPLETE}: {error}"
    except WindtunnelError as error:
        return f"{error.code}: {error.what}"
    except (ValueError, ArithmeticError, KeyError, IndexError) as error:
        return f"{UNREADABLE}: the row cannot be rebuilt: {error!r}"


def _step(row: _Row, chip: str) -> dict[str, Figure] | str:
    missing = gaps(row.said, row.cards)
    if missing:
        raise Incomplete(missing)
    found = step_of(row.said, chip, row.cards)
    if found.reason:
        return found.reason
    value, low, high, baseline = (
        float(column[0]) for column in (found.value, found.low, found.high, found.baseline)
    )
    return {"step_seconds": Figure(value, low, high, baseline)}


def _latest(rows: list[_Row]) -> frozenset[int]:
    """Of rows that differ only in the state of the software: the last after a change, else the last."""
    best: dict[object, tuple[tuple[bool, int], int]] = {}
    for row in rows:
        key = (replace(row.said, earlier=False), row.device, row.cards, row.metric)
        rank = (not row.said.earlier, row.position)
        if key not in best or rank > best[key][0]:
            best[key] = (rank, row.position)
    return frozenset(position for _, position in best.values())
