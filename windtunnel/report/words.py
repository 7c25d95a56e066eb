"""Sentences and rows that the terminal and the page share: the verdict, metrics with notes, source shares."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from windtunnel import units
from windtunnel.estimate import Estimate, Source
from windtunnel.program.program import Outcome, StepKind
from windtunnel.results import columns
from windtunnel.results.columns import Unit
from windtunnel.results.json_result import samples_per_s_per_gpu
from windtunnel.results.run_result import RunResult

_ALIKE = 0.01  # steps of one kind within this of each other are one number

STEP_NAMES = {
    StepKind.TRAIN: "training step",
    StepKind.PREFILL: "prefill",
    StepKind.DECODE: "decode step",
    StepKind.FORWARD: "forward",
    StepKind.SCRIPT: "whole script",
}
_ENDINGS = {
    Outcome.SCRIPT_ERROR: "the script stopped with an error",
    Outcome.INTERRUPTED: "the recording was interrupted",
    Outcome.OUT_OF_MEMORY: "the script ran out of memory",
}
_UNIT_OF_ONE_CARD = "/GPU"


@dataclass(frozen=True, slots=True)
class StepGroup:
    """All recorded steps of one kind."""

    kind: str
    count: int
    first_s: float
    median_s: float
    shortest_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the answer. ``interval`` is empty for exact numbers; it is in the unit of ``value``."""

    key: str
    label: str
    number: str
    unit: str
    interval: str
    note: str

    @property
    def value(self) -> str:
        """The number with its unit."""
        return f"{self.number} {self.unit}".rstrip()


def title(result: RunResult) -> str:
    """``MTT S5000 · 8 cards · training step``."""
    cards = "1 card" if result.cards == 1 else f"{result.cards:,} cards"
    return f"{result.chip_title} · {cards} · {STEP_NAMES[result.step_kind]}"


def recorded(result: RunResult) -> str:
    """``recorded 41,312 ops, 388 collectives in 6.8 s``."""
    parts = [f"{units.count(result.recorded_ops)} ops"]
    if result.recorded_collectives:
        parts.append(f"{units.count(result.recorded_collectives)} collectives")
    took = f" in {units.seconds(result.recorded_s, 2)}" if result.recorded_s > 0 else ""
    return f"recorded {', '.join(parts)}{took}"


def verdict(result: RunResult) -> str:
    """The answer in one sentence."""
    memory = result.memory
    if not memory.fits:
        # a recording that stopped there says how much was held, not how much would have been
        least = "at least " if result.outcome is Outcome.OUT_OF_MEMORY else ""
        needs = f"{least}{units.gib(memory.peak_reserved_bytes.value)} needed"
        place = f"; out of memory: {brief(memory.out_of_memory_at)}" if memory.out_of_memory_at else ""
        return f"Does not fit: {needs}, {units.gib(memory.usable_bytes)} usable{place}"
    if result.outcome is not Outcome.COMPLETE:
        detail = f": {brief(result.outcome_detail)}" if result.outcome_detail else ""
        return f"Not complete: {_ENDINGS[result.outcome]}{detail}"
    share = memory.peak_reserved_bytes.value / memory.usable_bytes if memory.usable_bytes else 0.0
    time = f"; {STEP_NAMES[result.step_kind]} in {units.seconds(result.step_time_s.value)}"
    return f"Fits, using {units.percent(share, 2)} of memory{time if result.step_time_s.value > 0 else ''}"


def brief(text: str) -> str:
    """The first two sentences of a message's first line: what happened, without the advice after it."""
    line = text.strip().partition("\n")[0]
    return ". ".join(line.split(". ")[:2]).rstrip(".")


def shares(estimate_shares: Iterable[tuple[Source, float]]) -> str:
    """``91 % calibrated, 9 % analytic``, most first."""
    ordered = sorted(estimate_shares, key=lambda share: -share[1])
    return ", ".join(f"{_whole_percent(share)} {source}" for source, share in ordered if share > 0)


def metrics(result: RunResult) -> list[Metric]:
    """The rows of the answer, in the order that people ask."""
    rows = [_step_time(result)] if result.step_time_s.value > 0 else []
    rows += _throughput(result)
    rows += _model_flops(result)
    rows += _utilisation(result)
    rows.append(_peak_memory(result))
    return rows


def step_groups(result: RunResult) -> list[StepGroup]:
    """The recorded steps by kind, in order of appearance; empty when one number says it all."""
    by_kind: dict[str, list[float]] = {}
    for kind, seconds in result.steps:
        by_kind.setdefault(kind, []).append(seconds)
    groups = [
        StepGroup(kind, len(all_s), all_s[0], statistics.median(all_s), min(all_s), max(all_s))
        for kind, all_s in by_kind.items()
    ]
    alike = all(group.longest_s <= group.shortest_s * (1 + _ALIKE) for group in groups)
    return [] if alike and len(groups) < 2 else groups


def limited_by(limit: str, peak_fraction: float, bandwidth_fraction: float) -> str:
    """``compute, 57 % of peak``."""
    if limit == "compute" and peak_fraction > 0:
        # above the peak only where causal attention is counted in full, as MFU counts it
        counted = " (counted in full)" if peak_fraction > 1 else ""
        return f"compute, {_whole_percent(peak_fraction)} of peak{counted}"
    if limit == "memory" and bandwidth_fraction > 0:
        return f"memory, {_whole_percent(bandwidth_fraction)} of bandwidth"
    return limit


def metric(key: str, estimate: Estimate, note: str = "", suffix: str = "") -> Metric:
    """An estimate as a row; ``suffix`` goes behind the unit."""
    column = columns.column(key)
    exact = estimate.low == estimate.high
    high = estimate.high if math.isfinite(estimate.high) else estimate.value
    (value, low, top), unit = columns.numbers(column.unit, (estimate.value, estimate.low, high))
    top = top if math.isfinite(estimate.high) else "∞"
    interval = "" if exact else f"{low} – {top}"
    return Metric(key, column.label, value, unit + suffix, interval, note)


def _step_time(result: RunResult) -> Metric:
    return metric("step_time_s", result.step_time_s, shares(result.step_time_s.shares))


def _throughput(result: RunResult) -> list[Metric]:
    rate = result.tokens_per_s_per_gpu
    if rate is not None:
        whole = f"{units.count(rate.value * result.cards)} tokens/s in total" if result.cards > 1 else ""
        tokens = "1 token" if result.tokens_per_step == 1 else f"{units.count(result.tokens_per_step)} tokens"
        per_step = f"{tokens} a step"
        return [metric("tokens_per_s_per_gpu", rate, ", ".join(part for part in (per_step, whole) if part))]
    samples = samples_per_s_per_gpu(result)
    if samples is not None:
        return [metric("samples_per_s_per_gpu", samples, f"{units.count(result.samples_per_step)} a step")]
    return []


def _model_flops(result: RunResult) -> list[Metric]:
    if result.model_tflops_per_gpu is None:
        return []
    per_token = result.model_flops_per_token
    note = f"{columns.text(Unit.FLOP, per_token)}/token" if per_token else ""
    return [metric("model_tflops_per_gpu", result.model_tflops_per_gpu, note)]


def _utilisation(result: RunResult) -> list[Metric]:
    rows = []
    if result.mfu is not None:
        notes = ["full attention"]
        if result.mfu_causal is not None:
            notes.append(f"{units.percent(result.mfu_causal.value)} if causal")
        if result.mfu_peak:
            notes.append(f"peak {result.mfu_peak}")
        rows.append(metric("mfu", result.mfu, "; ".join(notes)))
    recomputes = result.hardware_flops_per_step > 1.001 * result.model_flops_per_step > 0
    if result.hfu is not None and recomputes:
        rows.append(metric("hfu", result.hfu, "recomputation counted"))
    if result.mbu is not None and result.step_kind is not StepKind.TRAIN:
        rows.append(metric("mbu", result.mbu, "of memory bandwidth"))
    return rows


def _peak_memory(result: RunResult) -> Metric:
    memory = result.memory
    usable = units.gib(memory.usable_bytes)
    share = memory.peak_reserved_bytes.value / memory.usable_bytes if memory.usable_bytes else 0.0
    note = (
        f"{units.percent(share, 2)} of {usable} usable" if memory.fits else f"does not fit in {usable} usable"
    )
    return metric("peak_reserved_bytes", memory.peak_reserved_bytes, note, suffix=_UNIT_OF_ONE_CARD)


def _whole_percent(fraction: float) -> str:
    if 0 < fraction < 0.005:
        return "<1 %"
    return f"{100 * fraction:.0f} %"
