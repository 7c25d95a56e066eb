"""Tables for a spreadsheet or a script: operations, memory, communication. Base units, keys as headings."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from windtunnel.report.files import write_bytes
from windtunnel.results.columns import PART_KEYS
from windtunnel.results.run_result import RunResult

Table = list[list[object]]
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write(result: RunResult, kind: str, path: str | Path) -> None:
    """Write one table; ``kind`` is a key of ``TABLES``. Raises E925 where that cannot be done."""
    write_bytes(path, encode(result, kind).encode())


def encode(result: RunResult, kind: str) -> str:
    """One table as text with a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_safe(cell) for cell in row] for row in TABLES[kind](result))
    return text.getvalue()


def _ops(result: RunResult) -> Table:
    heading = (
        "name family phase module line stream shapes count seconds low_s high_s flops bytes_moved precision "
        "limit source peak_fraction bandwidth_fraction formula"
    ).split()
    rows = sorted(result.ops, key=lambda row: -row.seconds)
    return [list(heading), *([getattr(row, key) for key in heading] for row in rows)]


def _memory(result: RunResult) -> Table:
    memory = result.memory
    heading = ["fraction_of_events", *(f"{name}_bytes" for name in memory.categories), "reserved_bytes"]
    rows: Table = [[at, *sizes, reserved] for at, sizes, reserved in memory.timeline]
    return [list(heading), *rows]


def _storages(result: RunResult) -> Table:
    heading = ["bytes", "count", "category", "line", "module", "op"]
    return [list(heading), *([getattr(row, key) for key in heading] for row in result.memory.largest)]


def _communication(result: RunResult) -> Table:
    heading = (
        "collective group ranks count bytes seconds exposed_s algbw_bytes_per_s busbw_bytes_per_s"
    ).split()
    return [list(heading), *([getattr(row, key) for key in heading] for row in result.communication)]


def _ranks(result: RunResult) -> Table:
    heading = ["rank", "count", "step_time_s", *PART_KEYS, "peak_reserved_bytes"]
    rows: Table = [
        [r.rank, r.count, r.step_time_s, *(getattr(r.parts, key) for key in PART_KEYS), r.peak_reserved_bytes]
        for r in result.ranks
    ]
    return [list(heading), *rows]


def _scaling(result: RunResult) -> Table:
    heading = ["cards", "step_time_s", "low_s", "high_s", "tokens_per_s_per_gpu", "mfu", "efficiency", *PART_KEYS,
               "peak_reserved_bytes", "limit"]  # fmt: skip
    rows: Table = []
    for p in result.scaling:
        rate = p.tokens_per_s_per_gpu.value if p.tokens_per_s_per_gpu else ""
        mfu = p.mfu.value if p.mfu else ""
        parts = [getattr(p.parts, key) for key in PART_KEYS]
        step = p.step_time_s
        rows.append([p.cards, step.value, step.low, step.high, rate, mfu, p.efficiency, *parts,
                     p.peak_reserved_bytes, p.limit])  # fmt: skip
    return [list(heading), *rows]


TABLES: dict[str, Callable[[RunResult], Table]] = {
    "ops": _ops,
    "memory": _memory,
    "storages": _storages,
    "communication": _communication,
    "ranks": _ranks,
    "scaling": _scaling,
}


def _safe(cell: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe; numbers stay."""
    if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS):
        return "'" + cell
    return cell
