"""The prediction: a recorded program on a chip, as everything that `windtunnel run` says about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from windtunnel import units
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.memory.replay import memory_result
from windtunnel.program.file import content_hash
from windtunnel.program.program import Notice, NoticeKind, Program, StepKind, StepMark
from windtunnel.program.work import Family
from windtunnel.results.ceilings import ceilings
from windtunnel.results.run_result import MemoryResult, OpRow, RunResult, StepParts
from windtunnel.specs.schema import Chip
from windtunnel.timeline.flops import step_flops
from windtunnel.timeline.parts import kind_of, step_parts
from windtunnel.timeline.prices import CollectiveTime
from windtunnel.timeline.pricing import (
    ModelFor,
    Priced,
    default_model,
    for_program,
    price_program,
    sensitivities,
    step_estimate,
)
from windtunnel.timeline.provenance import assumptions, peak_flops, tf32_or, versions
from windtunnel.timeline.rows import op_table
from windtunnel.timeline.spans import spans, tracks, tracks_of_sites
from windtunnel.timeline.step import replay_step, step_seconds, step_sites
from windtunnel.timeline.sustained import unknown_power

LAUNCH_BOUND = 0.2  # a card that idles more than this part of the step waits for its host
UNKNOWN_SHARE = 0.02  # time without a cost model that is worth a warning


def predict(
    program: Program,
    chip: Chip,
    *,
    step: int | None = None,
    cards: int = 1,
    tokens_per_step: int | None = None,
    collective_time: CollectiveTime | None = None,
    model_for: ModelFor = default_model,
    memory: MemoryResult | None = None,
    strict: bool = False,
    command: str = "",
) -> RunResult:
    """Predict one step of a program on a chip.

    Args:
        step: which recorded step; the last when None.
        cards: how many cards run the same program. tokens_per_step: tokens of the global batch; when None,
            every card is taken to have its own batch.
        collective_time: seconds of a collective, from the network part; needed when groups span cards.
        model_for: the cost model of a chip.
        memory: the memory part when it is already known; else it is replayed here.
        strict: refuse operations that have no cost model instead of pricing them from their bytes.

    Raises:
        WindtunnelError: E110 or E5xx, an operation that the chip cannot run; E510, a collective without a
            network; E511, a step that was not recorded; E512, an operation without a cost model (``strict``).
    """
    mark = _choose(program, step)
    model_for = for_program(program, model_for)
    priced = price_program(program, chip, model_for, collective_time, mark.kind)
    sites = step_sites(program, mark)
    counts = np.bincount(sites, minlength=len(program.sites))
    unpriced = _unpriced(program, counts)
    if strict and unpriced:
        raise _not_priced(unpriced)
    timeline = replay_step(priced.table, sites, mark.kind, priced.graph_launch_s)
    kinds = np.array([kind_of(work.family) for work in program.works], np.int64)[program.sites[:, 0]]
    parts = step_parts(timeline, kinds, program.sites[:, 4])
    step_time = step_estimate(priced, program, sites, counts, mark.kind, parts.total_s, parts.host_gap_s)
    table = op_table(program, priced.prices, counts, chip)
    flops = step_flops(program.works, program.sites, counts)
    tokens = tokens_per_step if tokens_per_step is not None else mark.tokens * cards
    peak = peak_flops(program, chip, flops.precision)
    return RunResult(
        chip=chip.name,
        chip_title=chip.title,
        cards=cards,
        step_kind=mark.kind,
        step_time_s=step_time,
        parts=parts,
        tokens_per_step=tokens,
        samples_per_step=mark.samples * cards,
        tokens_per_s_per_gpu=_rate(step_time, tokens / cards),
        model_flops_per_step=flops.model,
        model_flops_per_step_causal=flops.model_causal,
        hardware_flops_per_step=flops.hardware,
        model_flops_per_token=flops.model * cards / tokens if tokens else 0.0,
        model_tflops_per_gpu=_rate(step_time, flops.model / units.TERA),
        mfu=_rate(step_time, flops.model / peak) if peak else None,
        mfu_causal=_rate(step_time, flops.model_causal / peak) if peak else None,
        hfu=_rate(step_time, flops.hardware / peak) if peak else None,
        mbu=_rate(step_time, _device_bytes(table.rows) / chip.memory_bytes_per_s.value),
        mfu_peak=_peak_name(tf32_or(program, chip, flops.precision), peak),
        memory=memory if memory is not None else memory_result(program, chip),
        ops=table.rows,
        spans=spans(program, timeline, table.row_of_site, tracks_of_sites(program, priced.prices)),
        tracks=tracks(program),
        sensitivities=sensitivities(priced, program, chip, model_for, sites, mark.kind, collective_time),
        steps=_all_steps(program, priced),
        notices=(*program.notices, *unpriced),
        warnings=_warnings(parts, table.rows, mark),
        outcome=program.origin.outcome,
        outcome_detail=program.origin.outcome_detail,
        recorded_ops=program.num_ops,
        recorded_collectives=_collectives(program),
        recorded_s=program.origin.recorded_s,
        command=command,
        program_hash=content_hash(program),
        assumptions=(*assumptions(program, chip), *unknown_power(chip, mark.kind)),
        ceilings=ceilings(chip),
        versions=versions(program, chip),
    )


def _choose(program: Program, step: int | None) -> StepMark:
    if step is None:
        return program.last_step()
    if -len(program.steps) <= step < len(program.steps):
        return program.steps[step]
    raise WindtunnelError(
        "E511",
        f"step {step} was not recorded: the program has {len(program.steps)}",
        hint="leave the step out to take the last one, or record more with --steps",
        values={"step": step, "recorded": len(program.steps)},
    )


def _rate(time: Estimate, amount: float) -> Estimate | None:
    return time.inverse(amount) if amount > 0 and time.value > 0 else None


def _device_bytes(rows: Sequence[OpRow]) -> float:
    """Traffic to device memory; copies over PCIe and collectives are not kernels of this memory."""
    elsewhere = (str(Family.HOST_COPY), str(Family.COLLECTIVE), str(Family.HOST))
    return sum(row.bytes_moved for row in rows if row.family not in elsewhere)


def _peak_name(precision: str, peak: float) -> str:
    return f"{precision} {units.decimal(peak, 'FLOP/s')}" if peak else ""


def _all_steps(program: Program, priced: Priced) -> tuple[tuple[str, float], ...]:
    """Length of every recorded step; equal steps are replayed once."""
    known: dict[tuple[StepKind, bytes], float] = {}
    answers = []
    for mark in program.steps:
        sites = step_sites(program, mark)
        key = (mark.kind, sites.tobytes())
        if key not in known:
            known[key] = step_seconds(priced.table, sites, mark.kind, priced.graph_launch_s)
        answers.append((str(mark.kind), known[key]))
    return tuple(answers)


def _collectives(program: Program) -> int:
    is_collective = np.array([work.family is Family.COLLECTIVE for work in program.works], dtype=bool)
    ops = program.events[program.events >= 0]
    return int(is_collective[program.sites[ops, 0]].sum()) if len(ops) else 0


def _unpriced(program: Program, counts: npt.NDArray[np.int64]) -> list[Notice]:
    """Operations of the step without a cost model, by name."""
    uses = np.bincount(program.sites[:, 0], weights=counts, minlength=len(program.specs))
    found: Counter[str] = Counter()
    for spec, work, times in zip(program.specs, program.works, uses.tolist()):
        if work.family is Family.UNKNOWN and times:
            found[spec.base_name] += int(times)
    return [
        Notice(NoticeKind.UNPRICED, f"{name}: no cost model, priced from its bytes", count=times)
        for name, times in found.items()
    ]


def _not_priced(unpriced: Sequence[Notice]) -> WindtunnelError:
    return WindtunnelError(
        "E512",
        f"{len(unpriced)} of the step's operations have no cost model",
        hint="register a cost for each of them, or leave out --strict to price them from their bytes",
        values={f"operation {n}": notice.what for n, notice in enumerate(unpriced, 1)},
    )


def _warnings(parts: StepParts, rows: Sequence[OpRow], mark: StepMark) -> tuple[str, ...]:
    whole = parts.total_s
    said = []
    if whole and parts.host_gap_s > LAUNCH_BOUND * whole:
        said.append(
            f"launch-bound: the card waits for its host {units.percent(parts.host_gap_s / whole, 2)} of the "
            "step; larger batches, torch.compile or graphs would help"
        )
    unknown = sum(row.seconds for row in rows if row.family == Family.UNKNOWN)
    if whole and unknown > UNKNOWN_SHARE * whole:
        said.append(f"{units.percent(unknown / whole, 2)} of the step is operations without a cost model")
    if mark.kind is StepKind.SCRIPT:
        said.append("no step was found: times are those of the whole recording")
    return tuple(said)
