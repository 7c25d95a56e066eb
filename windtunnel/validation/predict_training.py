"""Every row of a training table as predicted step time, rate and peak memory, or a refusal.

All targets of a row are predicted whatever the row measured. A configuration that later releases of the same source
repeat is scored once: the newest release, and in it the fastest submission.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.memory.settings import AllocatorSettings
from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.recipes.fit.parts import ACTIVATION_SPREAD, MemoryParts
from windtunnel.recipes.fit.replayed import replayed_memory
from windtunnel.recipes.fit.training import Adapters, training_memory
from windtunnel.recipes.layout import Layout, Sharding
from windtunnel.recipes.training import training_step
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.schema import Chip
from windtunnel.units import GIB, TERA
from windtunnel.validation.flop_conventions import published_flops
from windtunnel.validation.measured_files import ids_of
from windtunnel.validation.model_names import architecture_named, catalogue_name
from windtunnel.validation.reasons import INCOMPLETE, NOT_MODELLED, UNREADABLE, Incomplete
from windtunnel.validation.rows_file import Answers, Flags, refused
from windtunnel.validation.tables import Table
from windtunnel.validation.training_place import cluster_for
from windtunnel.validation.training_rows import (
    TrainingCase,
    refusal,
    training_case,
    vtrain_case,
)

Row = dict[str, str]
Progress = Callable[[int, int], None]

UNITS = {
    "step_seconds": "s",
    "iteration_ms": "ms",
    "tokens_per_s_per_gpu": "tokens/s",
    "model_tflops_per_gpu": "TFLOP/s",
    "peak_memory_gib": "GiB",
    "max_memory_gib": "GiB",
}
"""Column → unit, in the order of preference for scoring a row's speed."""
SPEED = ("step_seconds", "iteration_ms", "tokens_per_s_per_gpu", "model_tflops_per_gpu")
_RATES = SPEED[2:]
CHUNKS_MAX = 1_000_000
"""Micro-batches times model chunks of one step: far beyond any run, and a slip of the pen beyond that."""
_BROKEN = (ValueError, KeyError, ZeroDivisionError, OverflowError, IndexError, StopIteration)


@dataclass(frozen=True, slots=True)
class Value:
    """One target of one row; ``reason`` where there is no prediction."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    baseline: float = np.nan
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A predicted step, and FLOPs ÷ peak of the data sheet. ``tflop_per_gpu``: as sources count them."""

    seconds: Estimate
    roofline_s: float
    tokens_per_gpu: float
    tflop_per_gpu: float


class TrainingRows:
    """Predicts training rows; steps of equal configurations are computed once."""

    def __init__(self) -> None:
        self._predictors: dict[tuple[str, int], TrainingPredictor] = {}
        self._steps: dict[TrainingCase, Step] = {}

    def predict(self, table: Table, progress: Progress = lambda done, of: None) -> Iterator[Answers]:
        """All targets of all rows. Never raises."""
        targets = [name for name in UNITS if table.has(name)] or ["step_seconds"]
        rows = rows_of(table)
        speeds, memories, cases = [], [], []
        for number, row in enumerate(rows):
            progress(number, len(rows))
            case, reason = case_of(table.file, row)
            cases.append(case)
            speeds.append(self._speed(case, reason))
            memories.append(_memory(case, row, reason) if _has_memory(targets) else Value())
        for target in targets:
            values = memories if UNITS[target] == "GiB" else [_as(target, speed) for speed in speeds]
            scored = _newest(table, target, rows, cases) & _preferred(table, target)
            yield from _answers(table, target, values, cases, rows, scored)

    def _speed(self, case: TrainingCase | None, reason: str) -> Step | str:
        if case is None:
            return reason
        key = replace(case, assumed=())
        layout = key.layout
        if layout.micro_batches * layout.pipeline * layout.chunks > CHUNKS_MAX:
            return f"{UNREADABLE}: {layout.micro_batches:,} micro-batches in one step"
        if key not in self._steps:
            try:
                self._steps[key] = self._step(key)
            except WindtunnelError as error:
                return f"{error.code}: {error.what}"
            except _BROKEN as error:
                return f"{UNREADABLE}: the row cannot be rebuilt: {error!r}"
        return self._steps[key]

    def _step(self, case: TrainingCase) -> Step:
        layout = case.layout
        place = (case.chip, layout.cards)
        if place not in self._predictors:
            cluster = cluster_for(*place)
            self._predictors[place] = TrainingPredictor(cluster.chip, NetworkModel(cluster))
        predictor = self._predictors[place]
        found = predictor.predict(training_step(case.model, layout))
        roofline_s = found.hardware_flops / _peak(predictor.chip, layout)
        per_gpu = published_flops(case.model, layout) / layout.cards / TERA
        return Step(found.step_time_s, roofline_s, layout.step_tokens / layout.cards, per_gpu)


def _peak(chip: Chip, layout: Layout) -> float:
    """Data-sheet peak of the layout's precision; BF16's where the chip has no such units."""
    wanted = {"nvfp4": "fp4"}.get(
        str(layout.precision), "fp8" if layout.precision.is_fp8 else str(layout.precision)
    )
    return chip.peak_flops.get(wanted, chip.peak_flops["bf16"]).value


def rows_of(table: Table) -> list[Row]:
    """Rows as texts; whole numbers as such, also where the file holds them as floats."""
    names = list(table.columns)
    columns = [[_plain(cell) for cell in table.text(name).tolist()] for name in names]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _plain(cell: str) -> str:
    if cell == "nan":
        return ""
    return cell[:-2] if re.fullmatch(r"-?\d+\.0", cell) else cell


def case_of(file: str, row: Row) -> tuple[TrainingCase | None, str]:
    """The configuration of a row of the file called ``file``, or why there is none."""
    try:
        return (vtrain_case(row) if file.startswith("vtrain") else training_case(row, architecture_named)), ""
    except Incomplete as error:
        return None, f"{INCOMPLETE}: {refusal(error)}"
    except WindtunnelError as error:
        return None, f"{error.code}: {error.what}"
    except _BROKEN as error:
        return None, f"{UNREADABLE}: the row cannot be read: {error!r}"


def _as(target: str, step: Step | str) -> Value:
    """The step in the unit of its target."""
    if isinstance(step, str):
        return Value(reason=step)
    seconds = step.seconds
    if target in _RATES:
        amount = step.tokens_per_gpu if target == "tokens_per_s_per_gpu" else step.tflop_per_gpu
        if not math.isfinite(amount):
            return Value(reason=f"{NOT_MODELLED}: FLOPs of such layers are counted in no known way")
        rate = seconds.inverse(amount)
        return Value(rate.value, rate.low, rate.high, amount / step.roofline_s)
    scale = 1e3 if target == "iteration_ms" else 1.0
    return Value(seconds.value * scale, seconds.low * scale, seconds.high * scale, step.roofline_s * scale)


def _has_memory(targets: list[str]) -> bool:
    return any(UNITS[name] == "GiB" for name in targets)


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Bytes of a peak with their 80 % interval; ``reserved``: what the allocator holds, else what is in use."""

    value: float
    low: float
    high: float
    reserved: bool


def _memory(case: TrainingCase | None, row: Row, reason: str) -> Value:
    """Peak memory: reserved where PyTorch's FSDP reports it, else allocated."""
    if case is None:
        return Value(reason=reason)
    try:
        parts = memory_parts(case, row)
    except Incomplete as error:
        return Value(reason=f"{INCOMPLETE}: {error}")
    except WindtunnelError as error:
        return Value(reason=f"{error.code}: {error.what}")
    except _BROKEN as error:
        return Value(reason=f"{UNREADABLE}: the row cannot be rebuilt: {error!r}")
    peak = peak_memory(case, parts)
    return Value(peak.value / GIB, peak.low / GIB, peak.high / GIB, parts.counted / GIB)


def peak_memory(case: TrainingCase, parts: MemoryParts) -> PeakMemory:
    """What the framework of a row reports as its peak."""
    if case.layout.sharding is Sharding.FSDP:
        whole = parts.estimate()
        return PeakMemory(whole.value, whole.low, whole.high, reserved=True)
    width = ACTIVATION_SPREAD * parts.modelled
    allocated = float(parts.allocated)
    return PeakMemory(allocated, allocated - width, allocated + width, reserved=False)


def memory_parts(case: TrainingCase, row: Row) -> MemoryParts:
    """What a rebuilt row's peak is made of. Raises Incomplete where the row does not state recomputation."""
    stated = row.get("recompute", "").lower()
    if not stated or stated.startswith("not") or "not stated" in stated or "recipe" in stated:
        raise Incomplete("recomputation is not stated")
    model = model_spec(row["model"])
    adapters = Adapters(rank=case.layout.adapter_rank) if case.layout.adapter_rank else None
    return _parts(case, row, model, _fitting(case, model, adapters), adapters)


def _parts(
    case: TrainingCase, row: Row, model: ModelSpec, layout: Layout, adapters: Adapters | None
) -> MemoryParts:
    """Replayed, but for adapters. TorchTitan's launcher sets expandable segments (since October 2024)."""
    if adapters is not None:
        return training_memory(model, layout, adapters=adapters)
    settings = AllocatorSettings(expandable_segments=_framework(row) == "torchtitan")
    return replayed_memory(chip(case.chip), model, layout, settings=settings)


def _fitting(case: TrainingCase, model: ModelSpec, adapters: Adapters | None) -> Layout:
    """The layout; in FP8, with inputs of the activation function kept in FP8 where the card is too small otherwise.

    A row that was measured did run. Megatron-Core's switch for it is ``activation_func_fp8_input_store``.
    """
    layout = case.layout
    room = chip(case.chip).memory_bytes.value
    if not layout.precision.is_fp8 or training_memory(model, layout, adapters=adapters).reserved <= room:
        return layout
    return replace(layout, fp8_activation_inputs=True)


def model_spec(text: str) -> ModelSpec:
    """The model of a row, with as many layers as the row says. Raises Incomplete for one described by sizes."""
    name = catalogue_name(re.sub(r"\s*(truncated to|\().*", "", text))
    if name is None:
        raise Incomplete(f"memory of model `{text}`, which the catalogue does not have")
    whole = shipped_model(name)
    cut = re.search(r"truncated to (\d+) layers( \(1 dense)?|\((\d+)-layer proxy\)", text)
    if cut is None:
        return whole
    count = int(cut[1] or cut[3])
    if not cut[2]:
        return replace(whole, layers=whole.layers[-count:])
    sparse = next(layer for layer in whole.layers if isinstance(layer.ffn, Moe))
    return replace(whole, layers=(whole.layers[0], *(sparse,) * (count - 1)))


def _newest(table: Table, target: str, rows: list[Row], cases: list[TrainingCase | None]) -> Flags:
    """Which rows are scored: of equal configurations that were measured, the newest release's fastest."""
    best: dict[object, tuple[tuple[bool, str, float], int]] = {}
    speed, measured = _measured_speed(table), np.isfinite(table.number(target)).tolist()
    for number, (row, case) in enumerate(zip(rows, cases, strict=True)):
        key: object = number
        if case is not None:
            stated = tuple(row.get(name, "") for name in ("task", "precision", "recompute"))
            key = (replace(case, assumed=()), stated, _framework(row))
        rank = (measured[number], row.get("source_id", ""), speed[number])
        if key not in best or rank > best[key][0]:
            best[key] = (rank, number)
    scored = np.zeros(len(rows), dtype=np.bool_)
    scored[[number for _, number in best.values()]] = True
    return scored


def _measured_speed(table: Table) -> list[float]:
    """Tokens a second or steps a second, whichever the row states; 0 where neither."""
    rate = table.number("tokens_per_s_per_gpu", 0.0)
    seconds = table.number("step_seconds", 0.0) + table.number("iteration_ms", 0.0)
    inverse = np.divide(1.0, seconds, out=np.zeros_like(seconds), where=seconds > 0)
    return [float(v) for v in np.where(seconds > 0, inverse, rate)]


def _preferred(table: Table, target: str) -> Flags:
    """Rows whose speed is scored by this column: the first one that is measured. Memory is always scored."""
    chosen = np.ones(len(table), dtype=np.bool_)
    for name in SPEED[: SPEED.index(target)] if target in SPEED else ():
        chosen &= ~np.isfinite(table.number(name))
    return chosen


def _answers(
    table: Table,
    target: str,
    values: list[Value],
    cases: list[TrainingCase | None],
    rows: list[Row],
    scored: Flags,
) -> Iterator[Answers]:
    ids, measured = ids_of(table), table.number(target)
    groups: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for number, (value, case) in enumerate(zip(values, cases, strict=True)):
        precision = str(case.layout.precision) if case else ""
        chip = case.chip if case else ""
        groups[(precision, _framework(rows[number]), chip, value.reason)].append(number)
    family = "peak memory" if UNITS[target] == "GiB" else "training step"
    for (precision, library, chip, reason), members in sorted(groups.items()):
        index, own = table.index[members], tuple(ids[i] for i in members)
        title = f"{family} {precision}".strip()
        if reason:
            part = refused(
                table.file, target, index, own, measured[members], reason,
                unit=UNITS[target], family=title, library=library, chip=chip,
            )  # fmt: skip
            yield replace(part, scored=scored[members])
            continue
        columns = [
            np.array([getattr(values[i], name) for i in members])
            for name in ("value", "low", "high", "baseline")
        ]
        yield Answers(
            table.file, title, library, chip, target, UNITS[target], index, own,
            columns[0], columns[1], columns[2], measured[members], columns[3], scored[members],
        )  # fmt: skip


def _framework(row: Row) -> str:
    words = re.split(r"[ ,/]", row.get("framework", "") or "")
    return words[0].lower() if words else ""
