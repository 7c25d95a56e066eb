"""Pipeline schedules as data: for each stage, the order of its forward, backward and weight-gradient chunks.

    GPIPE          all forwards, then all backwards
    ONE_F_ONE_B    warm up, then one forward, one backward (PipeDream-flush, arXiv 2104.04473)
    INTERLEAVED    the same over ``chunks`` model chunks per stage (arXiv 2104.04473, section 2.2)
    ZERO_BUBBLE    backward split in two; weight gradients fill the bubble (ZB-H1, arXiv 2401.10241)
    DUALPIPE       both directions at once, two chunks per stage (DeepSeek-V3, arXiv 2412.19437)

A schedule fixes the order only. Times come from the replay (``pipeline.py``), or here from ``makespan`` with
one time per kind of chunk, which is what the closed-form bubbles in the tests are checked with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from windtunnel.errors import WindtunnelError


class Schedule(StrEnum):
    """Known pipeline schedules."""

    GPIPE = "gpipe"
    ONE_F_ONE_B = "1f1b"
    INTERLEAVED = "interleaved"
    ZERO_BUBBLE = "zero-bubble"
    DUALPIPE = "dualpipe"


class ChunkKind(StrEnum):
    """What a stage does with one micro-batch of one model chunk."""

    FORWARD = "F"
    BACKWARD = "B"  # the whole backward, or the input gradient where WEIGHT follows
    WEIGHT = "W"


class Chunk(NamedTuple):
    """One unit of work of a stage: ``virtual`` numbers the model chunks of the whole pipeline in order."""

    kind: ChunkKind
    micro_batch: int
    virtual: int


@dataclass(frozen=True, slots=True)
class PipelineOrder:
    """The order of every stage. ``stage_of[virtual]`` is where a model chunk lives."""

    schedule: Schedule
    stages: tuple[tuple[Chunk, ...], ...]
    stage_of: tuple[int, ...]
    splits_backward: bool


@lru_cache(maxsize=16)
def order(schedule: Schedule, stages: int, micro_batches: int, chunks: int = 1) -> PipelineOrder:
    """The order of all stages. ``chunks``: model chunks per stage (interleaved only).

    Raises E202 where the schedule cannot run: interleaved needs micro-batches in multiples of the stages,
    DualPipe an even number of stages and at least twice as many micro-batches as stages.
    """
    if min(stages, micro_batches, chunks) < 1:
        raise impossible(schedule, stages, micro_batches, "stages, micro-batches and chunks are at least 1")
    if schedule is Schedule.INTERLEAVED and chunks == 1:
        schedule = Schedule.ONE_F_ONE_B
    if schedule is Schedule.INTERLEAVED:
        return _interleaved(stages, micro_batches, chunks)
    if schedule is Schedule.DUALPIPE:
        from windtunnel.timeline.dualpipe import dualpipe  # it builds on this module's types

        return dualpipe(stages, micro_batches)
    build = {
        Schedule.GPIPE: _gpipe,
        Schedule.ONE_F_ONE_B: _one_f_one_b,
        Schedule.ZERO_BUBBLE: _zero_bubble,
    }[schedule]
    rows = tuple(tuple(build(stage, stages, micro_batches)) for stage in range(stages))
    return PipelineOrder(schedule, rows, tuple(range(stages)), schedule is Schedule.ZERO_BUBBLE)


def impossible(schedule: Schedule, stages: int, micro_batches: int, why: str) -> WindtunnelError:
    """E202 for a schedule that cannot run with these sizes."""
    return WindtunnelError(
        "E202",
        f"the {schedule} pipeline schedule cannot run with these sizes: {why}",
        hint="change the number of micro-batches (global batch / data parallel / micro-batch) or use 1f1b",
        values={"stages": stages, "micro-batches": micro_batches},
    )


def _gpipe(stage: int, stages: int, micro_batches: int) -> list[Chunk]:
    forward = [Chunk(ChunkKind.FORWARD, m, stage) for m in range(micro_batches)]
    return forward + [Chunk(ChunkKind.BACKWARD, m, stage) for m in range(micro_batches)]


def _one_f_one_b(stage: int, stages: int, micro_batches: int) -> list[Chunk]:
    warm_up = min(stages - stage - 1, micro_batches)
    row = [Chunk(ChunkKind.FORWARD, m, stage) for m in range(warm_up)]
    for m in range(micro_batches):
        if warm_up + m < micro_batches:
            row.append(Chunk(ChunkKind.FORWARD, warm_up + m, stage))
        row.append(Chunk(ChunkKind.BACKWARD, m, stage))
    return row


def _zero_bubble(stage: int, stages: int, micro_batches: int) -> list[Chunk]:
    """ZB-H1: weight gradients trail by ``stage`` micro-batches, so that activations stay those of 1F1B."""
    row: list[Chunk] = []
    weights_due = 0
    for chunk in _one_f_one_b(stage, stages, micro_batches):
        row.append(chunk)
        if chunk.kind is ChunkKind.BACKWARD and chunk.micro_batch >= stage:
            row.append(Chunk(ChunkKind.WEIGHT, weights_due, stage))
            weights_due += 1
    row += [Chunk(ChunkKind.WEIGHT, m, stage) for m in range(weights_due, micro_batches)]
    return row


def _interleaved(stages: int, micro_batches: int, chunks: int) -> PipelineOrder:
    if micro_batches % stages:
        why = "micro-batches must be a multiple of the stages"
        raise impossible(Schedule.INTERLEAVED, stages, micro_batches, why)
    rows = tuple(tuple(_interleaved_row(stage, stages, micro_batches, chunks)) for stage in range(stages))
    return PipelineOrder(Schedule.INTERLEAVED, rows, tuple(v % stages for v in range(stages * chunks)), False)


def _interleaved_row(stage: int, stages: int, micro_batches: int, chunks: int) -> list[Chunk]:
    """Micro-batches travel in groups of ``stages`` through one chunk, then through the next."""
    units = micro_batches * chunks

    def unit(index: int, kind: ChunkKind) -> Chunk:
        group, inside = divmod(index, stages * chunks)
        chunk, offset = divmod(inside, stages)
        if kind is ChunkKind.BACKWARD:
            chunk = chunks - 1 - chunk
        return Chunk(kind, group * stages + offset, chunk * stages + stage)

    warm_up = min((stages - stage - 1) * 2 + (chunks - 1) * stages, units)
    row = [unit(i, ChunkKind.FORWARD) for i in range(warm_up)]
    for i in range(units):
        if warm_up + i < units:
            row.append(unit(warm_up + i, ChunkKind.FORWARD))
        row.append(unit(i, ChunkKind.BACKWARD))
    return row
