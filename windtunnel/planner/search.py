"""The fastest layout of a training job that fits in memory.

Layouts are sorted out by memory first (a formula), then ordered by a lower bound of their step (``bound.py``)
and simulated in that order until the next bound is above the best step found: no layout that was left out can
then be faster. ``MOST_PRICED`` cuts that short; the answer says what it could have cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from windtunnel import units
from windtunnel.cost.peaks import matrix_peak
from windtunnel.estimate import Estimate
from windtunnel.network.model import NetworkModel
from windtunnel.planner.bound import StepBound
from windtunnel.planner.job import TrainingJob
from windtunnel.planner.space import LEFT_OUT, Space, families
from windtunnel.planner.training import TrainingPrediction, TrainingPredictor
from windtunnel.recipes.architecture import Architecture
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layout import Layout, Precision, Sharding
from windtunnel.recipes.training import training_step
from windtunnel.results.plan_result import PlanResult, PlanRow
from windtunnel.timeline.flops import StepFlops, step_flops

MOST_PRICED = 64
"""Layouts simulated at most, unless the caller says."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Layouts by memory: those that fit, the number looked at, and the thriftiest of the others."""

    fitting: list[tuple[Layout, Estimate]]
    considered: int
    least: Estimate | None


def plan_training(
    job: TrainingJob,
    space: Space,
    *,
    most_priced: int = MOST_PRICED,
    progress: Progress = lambda state: None,
) -> PlanResult:
    """Search ``space`` for the fastest layouts of ``job``.

    Raises:
        WindtunnelError: E250, nothing multiplies up; E209, a mixer that recipes cannot build; E501, the chip
            lacks the precision.
    """
    model = architecture_of(job.model)
    peak_name = _peak_name(job.precision)
    peak = matrix_peak(job.cluster.chip, peak_name).value
    found = _by_memory(job, space, progress)
    predictor = TrainingPredictor(job.cluster.chip, NetworkModel(job.cluster))
    bound = StepBound(predictor, model)
    ordered = []
    for number, (layout, memory) in enumerate(found.fitting):
        progress(f"bound of layout {number + 1:,} of {len(found.fitting):,}")
        ordered.append((bound.seconds(layout), number, layout, memory))
    ordered.sort(key=lambda entry: entry[:2])
    flops = _flops_per_token(model, job.sequence)
    rows: list[PlanRow] = []
    gain = 0.0
    for number, (least_s, _, layout, memory) in enumerate(ordered):
        best_s = min((row.step_time_s.value for row in rows), default=float("inf"))
        if least_s >= best_s:
            break
        if number >= most_priced:
            gain = 1 - least_s / best_s
            break
        progress(f"step of layout {number + 1:,}")
        rows.append(_row(job, layout, predictor.predict(training_step(model, layout)), memory, flops, peak))
    rows.sort(key=lambda row: row.step_time_s.value)
    return PlanResult(
        model=job.model.name,
        chip=job.cluster.chip.name,
        chip_title=job.cluster.title,
        cards=job.cluster.cards,
        global_batch=job.global_batch,
        sequence=job.sequence,
        precision=str(job.precision),
        optimizer=str(job.optimizer),
        usable_bytes=job.usable_bytes,
        mfu_peak=f"{peak_name} {units.decimal(peak, 'FLOP/s')}",
        model_flops_per_token=flops.model,
        considered=found.considered,
        fitting=len(found.fitting),
        priced=len(rows),
        unpriced_gain=gain,
        rows=tuple(rows),
        least_bytes=None if found.fitting else found.least,
        left_out=LEFT_OUT if space.sharding is None and space.pipeline != 1 else "",
    )


def fits_on(job: TrainingJob, space: Space) -> bool:
    """Whether any layout of ``space`` surely fits; cheap: nothing is priced."""
    return any(job.memory(layouts[0]).high <= job.usable_bytes for layouts in families(job, space))


def _by_memory(job: TrainingJob, space: Space, progress: Progress) -> _Sorted:
    fitting: list[tuple[Layout, Estimate]] = []
    considered, least = 0, None
    for layouts in _buildable(job, space):
        considered += len(layouts)
        progress(f"memory of {considered:,} layouts")
        first = job.memory(layouts[0])
        if least is None or first.high < least.high:
            least = first
        if first.high > job.usable_bytes:
            continue  # the others of the group need more
        for layout in layouts:
            memory = job.memory(layout)
            if memory.high <= job.usable_bytes:
                fitting.append((layout, memory))
    return _Sorted(fitting, considered, least)


def _buildable(job: TrainingJob, space: Space) -> Iterator[list[Layout]]:
    """Layouts that have a layer for every chunk of the pipeline."""
    for layouts in families(job, space):
        kept = [one for one in layouts if one.pipeline * one.chunks <= len(job.model.layers)]
        if kept:
            yield kept


def _row(
    job: TrainingJob,
    layout: Layout,
    step: TrainingPrediction,
    memory: Estimate,
    flops: StepFlops,
    peak: float,
) -> PlanRow:
    rate = step.step_time_s.inverse(job.step_tokens / layout.cards)
    return PlanRow(
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        chunks=layout.chunks,
        context=layout.context,
        expert=layout.expert,
        data=layout.data,
        micro_batch=layout.micro_batch,
        micro_batches=layout.micro_batches,
        schedule=layout.schedule if layout.pipeline > 1 else "",
        recompute=str(layout.recompute),
        sharding=str(layout.sharding),
        step_time_s=step.step_time_s,
        tokens_per_s_per_gpu=rate,
        tokens_per_s=rate.scaled(layout.cards),
        mfu=rate.scaled(flops.model / peak),
        mfu_causal=rate.scaled(flops.model_causal / peak),
        parts=step.parts,
        peak_bytes=memory,
    )


def _flops_per_token(model: Architecture, sequence: int) -> StepFlops:
    """Model FLOPs of one token, from the model on a single card: no layout changes them."""
    layout = Layout(cards=1, global_batch=1, sequence=sequence, sharding=Sharding.DDP)
    recipe = training_step(model, layout)
    totals = [0.0, 0.0, 0.0]
    for part in (Part.FORWARD, Part.BACKWARD):
        program = recipe.program(0, part, 0)
        counts = np.bincount(program.events, minlength=len(program.sites))
        one = step_flops(program.works, program.sites, counts)
        for index, amount in enumerate((one.model, one.model_causal, one.hardware)):
            totals[index] += amount / sequence
    return StepFlops(totals[0], totals[1], totals[2], "bf16")


def _peak_name(precision: Precision) -> str:
    if precision.is_fp8:
        return "fp4" if precision is Precision.NVFP4 else "fp8"
    return str(precision)
