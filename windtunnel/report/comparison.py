"""Several results side by side: one column per chip, a unit in every row, the first as the measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windtunnel.estimate import Estimate
from windtunnel.report import words
from windtunnel.results import columns
from windtunnel.results.columns import PART_KEYS, Unit
from windtunnel.results.run_result import RunResult

NOTHING = "—"


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One quantity over all results. ``indent`` marks a part of the row above."""

    label: str
    unit: str
    cells: tuple[str, ...]
    indent: bool = False


def rows(results: Sequence[RunResult]) -> list[ComparedRow]:
    """Everything worth comparing, in the order that people ask."""
    compared = [ComparedRow("Fits", "", tuple("yes" if r.memory.fits else "no" for r in results))]
    compared += _estimate(
        "step_time_s", results, lambda r: r.step_time_s if r.step_time_s.value > 0 else None
    )
    compared += _parts(results)
    compared += _speed(results)
    compared += _estimate("tokens_per_s_per_gpu", results, lambda r: r.tokens_per_s_per_gpu)
    compared += _estimate("model_tflops_per_gpu", results, lambda r: r.model_tflops_per_gpu)
    compared += _estimate("mfu", results, lambda r: r.mfu)
    if any(result.mfu is not None for result in results):
        compared.append(ComparedRow("peak", "", tuple(r.mfu_peak or NOTHING for r in results), indent=True))
    if any(result.mfu is None for result in results) or results[0].step_kind != "train":
        compared += _estimate("mbu", results, lambda r: r.mbu)
    compared += _estimate("peak_reserved_bytes", results, lambda r: r.memory.peak_reserved_bytes)
    compared += _plain("Usable memory", Unit.BYTES, [result.memory.usable_bytes for result in results])
    sources = tuple(_mostly(result) for result in results)
    compared.append(ComparedRow("Step time rests on", "", sources))
    return compared


def names(results: Sequence[RunResult]) -> list[str]:
    """A heading per result: the chip, with what tells equal chips apart."""
    titles = [result.chip if result.cards == 1 else f"{result.chip}:{result.cards}" for result in results]
    doubled = {title for title in titles if titles.count(title) > 1}
    return [f"{title} ({i + 1})" if title in doubled else title for i, title in enumerate(titles)]


def _estimate(
    key: str, results: Sequence[RunResult], value: Callable[[RunResult], Estimate | None]
) -> list[ComparedRow]:
    estimates = [value(result) for result in results]
    known = [estimate for estimate in estimates if estimate is not None]
    if not known:
        return []
    column = columns.column(key)
    leading = min((estimate.value for estimate in known if estimate.value > 0), default=0.0)
    flat = [number for e in known for number in (e.value, e.low, e.high)]
    texts, unit = columns.numbers(column.unit, (leading, *flat))
    pieces = iter(texts[1:])
    values, intervals = [], []
    for estimate in estimates:
        if estimate is None:
            values.append(NOTHING)
            intervals.append("")
            continue
        shown, low, high = next(pieces), next(pieces), next(pieces)
        values.append(shown)
        high = high if math.isfinite(estimate.high) else "∞"
        intervals.append("" if estimate.low == estimate.high else f"{low} – {high}")
    result = [ComparedRow(column.label, unit, tuple(values))]
    if any(intervals):
        result.append(ComparedRow("80 % interval", "", tuple(intervals), indent=True))
    return result


def _speed(results: Sequence[RunResult]) -> list[ComparedRow]:
    first = results[0].step_time_s.value
    if first <= 0:
        return []
    cells = [f"{first / r.step_time_s.value:.2f}" if r.step_time_s.value > 0 else NOTHING for r in results]
    return [ComparedRow("Speed", "×", tuple(cells))]


def _parts(results: Sequence[RunResult]) -> list[ComparedRow]:
    whole = min((r.step_time_s.value for r in results if r.step_time_s.value > 0), default=0.0)
    if whole <= 0:
        return []
    compared = []
    for key in PART_KEYS:
        values = [getattr(result.parts, key) for result in results]
        texts, unit = columns.numbers(Unit.SECONDS, (whole, *values))
        if any(text.strip("0.") for text in texts[1:]):
            compared.append(ComparedRow(columns.label(key), unit, tuple(texts[1:]), indent=True))
    return compared


def _plain(label: str, unit: Unit, values: Sequence[float]) -> list[ComparedRow]:
    leading = min((value for value in values if value > 0), default=0.0)
    texts, suffix = columns.numbers(unit, (leading, *values))
    return [ComparedRow(label, suffix, tuple(texts[1:]))]


def _mostly(result: RunResult) -> str:
    if result.step_time_s.value <= 0:
        return NOTHING
    return words.shares([max(result.step_time_s.shares, key=lambda share: share[1])])
