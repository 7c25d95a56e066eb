"""Every row of a serving table as prediction or refusal.

Rows are rebuilt by `serving_rows`, which leaves out rows that measured nothing; here every measured cell is
replaced by 1 before, so that no prediction can depend on what was measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.layers.cached import Batch
from windtunnel.serving.deployment import Deployment
from windtunnel.validation import serving_rows
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured_files import ids_of
from windtunnel.validation.reasons import INCOMPLETE, UNREADABLE
from windtunnel.validation.rows_file import Answers, refused
from windtunnel.validation.tables import Table

Row = dict[str, str]
Progress = Callable[[int, int], None]

MEASURED = {
    "output_tokens_per_s_per_gpu": "tokens/s",
    "input_tokens_per_s_per_gpu": "tokens/s",
    "tpot_seconds": "s",
    "mean_inter_token_latency_seconds": "s",
    "mean_ttft_seconds": "s",
}
"""Columns that are predicted, and their units."""
_ALSO_MEASURED = (
    "output_tokens_per_s_total",
    "ttft_seconds",
    "achieved_requests_per_s",
    "total_tokens_per_s",
    "output_tokens_per_s",
)
_TARGETS = {
    "TPOT s": "tpot_seconds",
    "ITL s": "mean_inter_token_latency_seconds",
    "TTFT s": "mean_ttft_seconds",
}


@dataclass(frozen=True, slots=True)
class _Figure:
    position: int
    value: float
    baseline: float
    low: float
    high: float


def predict_serving(table: Table, progress: Progress = lambda done, of: None) -> Iterator[Answers]:
    """Predictions by kind of load and card, and the others with a reason. Never raises."""
    online = table.file.endswith("online")
    found: dict[tuple[str, str, str, str], list[_Figure]] = defaultdict(list)
    failed: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(_unmeasured(table)):
        progress(position, len(table))
        try:
            for figure in (serving_rows._online if online else serving_rows._one)(row):
                key = (_target(figure), figure.kind, _engine(row), chip_name(row["gpu"]) or row["gpu"])
                base = figure.baseline or np.nan
                found[key].append(_Figure(position, figure.predicted, base, figure.low, figure.high))
        except WindtunnelError as error:
            failed[f"{error.code}: {error.what}"].append(position)
        except (KeyError, ValueError) as error:
            text = str(error).strip("'")
            failed[f"{INCOMPLETE}: {text}"].append(position)
        except (ArithmeticError, IndexError, TypeError) as error:
            failed[f"{UNREADABLE}: the row cannot be rebuilt: {error!r}"].append(position)
    ids = ids_of(table)
    for (target, kind, engine, chip), figures in sorted(found.items()):
        yield _answers(table, ids, target, kind, engine, chip, figures)
    for reason, positions in sorted(failed.items()):
        target = "mean_inter_token_latency_seconds" if online else "output_tokens_per_s_per_gpu"
        yield refused(
            table.file, target, table.index[positions], tuple(ids[i] for i in positions),
            table.number(target)[positions], reason, unit=MEASURED[target],
        )  # fmt: skip


def served_step(table: Table) -> tuple[Deployment, Batch, tuple[str, ...]]:
    """The deployment of the one row of ``table``, the step that its load spends its time in, and what was assumed."""
    row = next(_unmeasured(table))
    return serving_rows.typical_step(row, online=table.file.endswith("online"))


def _unmeasured(table: Table) -> Iterator[Row]:
    """The rows as texts, with a 1 wherever something may have been measured; ``row_id`` is always there."""
    hidden = (*MEASURED, *_ALSO_MEASURED)
    columns = {name: table.text(name).tolist() for name in table.columns if name not in hidden}
    for position in range(len(table)):
        row = {
            name: "" if values[position] == "nan" else values[position] for name, values in columns.items()
        }
        yield {"row_id": str(position), "notes": "", "framework": "", **row, **dict.fromkeys(hidden, "1")}


def _target(figure: serving_rows.ServingRow) -> str:
    prompts = "input" if figure.kind == "prefill pass" else "output"
    return _TARGETS.get(figure.what, f"{prompts}_tokens_per_s_per_gpu")


def _engine(row: Row) -> str:
    words = row["framework"].split()
    return words[0].lower().rstrip(",") if words else ""


def _answers(
    table: Table,
    ids: tuple[str, ...],
    target: str,
    kind: str,
    engine: str,
    chip: str,
    figures: list[_Figure],
) -> Answers:
    positions = [figure.position for figure in figures]
    return Answers(
        table.file, f"serving, {kind}", engine, chip, target, MEASURED[target],
        table.index[positions],
        tuple(ids[i] for i in positions),
        np.array([figure.value for figure in figures]),
        np.array([figure.low for figure in figures]),
        np.array([figure.high for figure in figures]),
        table.number(target)[positions],
        np.array([figure.baseline for figure in figures]),
        np.ones(len(positions), dtype=np.bool_),
    )  # fmt: skip
