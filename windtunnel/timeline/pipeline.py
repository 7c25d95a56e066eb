"""Replay of a pipeline schedule: when every chunk of every stage runs, and where the time goes.

One representative rank per stage: ranks that differ only in their tensor-, data- or expert-parallel index do
the same at the same time. A chunk starts when its stage is free, in the order of the schedule, and when the
activation (or gradient) of the neighbour has arrived; sending overlaps compute unless ``blocking_sends``.
Not here: what is inside a chunk (``segment.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.timeline.schedule import Chunk, ChunkKind, PipelineOrder, Schedule

ChunkTime = Callable[[Chunk, int], float]
"""Seconds of a chunk on a stage."""
TransferTime = Callable[[int, int], float]
"""Seconds to send one micro-batch's activation from stage to stage."""
EarliestEnd = Callable[[Chunk], float]
"""Seconds before which a chunk cannot end, because its parameters have not arrived; 0: none."""


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """One chunk as it ran. ``waited_s``: how long its stage stood still before it."""

    stage: int
    chunk: Chunk
    start_s: float
    end_s: float
    waited_s: float


@dataclass(frozen=True, slots=True)
class PipelineTiming:
    """The replay of one step's micro-batches.

    Attributes:
        spans: every chunk, by stage in order.
        busy_s, bubble_s: per stage; they sum to ``total_s``.
        exposed_transfer_s: per stage, the part of the bubble that vanishes if transfers took no time.
        critical: spans on the critical path, first to last.
    """

    total_s: float
    spans: tuple[tuple[ChunkSpan, ...], ...]
    busy_s: tuple[float, ...]
    bubble_s: tuple[float, ...]
    critical: tuple[ChunkSpan, ...]


def dependency(chunk: Chunk, order: PipelineOrder) -> Chunk | None:
    """The chunk whose output ``chunk`` needs; None for the first forward."""
    virtuals = len(order.stage_of)
    directions = 2 if order.schedule is Schedule.DUALPIPE else 1
    depth = virtuals // directions
    position = chunk.virtual % depth
    if chunk.kind is ChunkKind.WEIGHT:
        return Chunk(ChunkKind.BACKWARD, chunk.micro_batch, chunk.virtual)
    if chunk.kind is ChunkKind.FORWARD:
        return Chunk(ChunkKind.FORWARD, chunk.micro_batch, chunk.virtual - 1) if position else None
    if position == depth - 1:
        return Chunk(ChunkKind.FORWARD, chunk.micro_batch, chunk.virtual)
    return Chunk(ChunkKind.BACKWARD, chunk.micro_batch, chunk.virtual + 1)


def replay(
    order: PipelineOrder,
    chunk_s: ChunkTime,
    transfer_s: TransferTime,
    earliest_end: EarliestEnd = lambda chunk: 0.0,
) -> PipelineTiming:
    """Run the schedule. Raises E203, naming stages and chunks, when the order can never finish."""
    ended: dict[Chunk, float] = {}
    cause: dict[Chunk, Chunk | None] = {}
    rows: list[list[ChunkSpan]] = [[] for _ in order.stages]
    queues = [deque(row) for row in order.stages]
    waiting: dict[Chunk, int] = {}
    runnable = deque(range(len(queues)))
    while runnable:
        stage = runnable.popleft()
        queue, row = queues[stage], rows[stage]
        while queue:
            chunk = queue[0]
            needs = dependency(chunk, order)
            if needs is not None and needs not in ended:
                waiting[needs] = stage
                break
            queue.popleft()
            free = row[-1].end_s if row else 0.0
            arrived = 0.0
            if needs is not None:
                origin = order.stage_of[needs.virtual]
                arrived = ended[needs] + (transfer_s(origin, stage) if origin != stage else 0.0)
            start = max(free, arrived)
            cause[chunk] = needs if arrived > free else (row[-1].chunk if row else None)
            seconds = chunk_s(chunk, stage)
            start = max(start, earliest_end(chunk) - seconds)
            ended[chunk] = start + seconds
            row.append(ChunkSpan(stage, chunk, start, ended[chunk], start - free))
            if chunk in waiting:
                runnable.append(waiting.pop(chunk))
    stuck = [(stage, queue[0]) for stage, queue in enumerate(queues) if queue]
    if stuck:
        raise _never_ends(stuck, order)
    return _timing(rows, cause)


def _timing(rows: list[list[ChunkSpan]], cause: dict[Chunk, Chunk | None]) -> PipelineTiming:
    total = max(row[-1].end_s for row in rows)
    busy = tuple(sum(span.end_s - span.start_s for span in row) for row in rows)
    by_chunk = {span.chunk: span for row in rows for span in row}
    last = max((row[-1] for row in rows), key=lambda span: (span.end_s, -span.stage))
    path = [last]
    while (before := cause[path[-1].chunk]) is not None:
        path.append(by_chunk[before])
    return PipelineTiming(
        total_s=total,
        spans=tuple(tuple(row) for row in rows),
        busy_s=busy,
        bubble_s=tuple(total - seconds for seconds in busy),
        critical=tuple(reversed(path)),
    )


def _never_ends(stuck: list[tuple[int, Chunk]], order: PipelineOrder) -> WindtunnelError:
    lines = []
    for stage, chunk in stuck[:8]:
        needs = dependency(chunk, order)
        lines.append(f"stage {stage} at {chunk.kind}{chunk.micro_batch} waits for {needs}")
    return WindtunnelError(
        "E203",
        "the pipeline schedule never finishes: stages wait for each other",
        hint="check the order of forward and backward chunks of the stages named",
        values={"waiting": "; ".join(lines)},
    )
