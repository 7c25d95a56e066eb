"""The order of DualPipe (DeepSeek-V3, arXiv 2412.19437, section 3.2.1): two directions share every stage.

Stage ``s`` holds model chunks ``s`` and ``P-1-s``. Half of the micro-batches enter at stage 0, half at the
last stage. Virtual chunks 0..P-1 are the first direction, P..2P-1 the second (virtual P+k is model chunk k,
on stage P-1-k). A stage at distance ``d`` from its end of the pipeline goes through eight phases; their
lengths are the published ones (deepseek-ai/DualPipe), counted in micro-batches of direction 0 (entering at
the near end) and direction 1 (at the far end).
"""

from __future__ import annotations

from collections import deque

from windtunnel.timeline.schedule import Chunk, ChunkKind, PipelineOrder, Schedule, impossible


class _Row:
    """The order of one stage while it is written down: micro-batches are numbered as they come."""

    def __init__(self, near: int, far: int) -> None:
        self.virtual = (near, far)
        self.chunks: list[Chunk] = []
        self._next = {ChunkKind.FORWARD: [0, 0], ChunkKind.BACKWARD: [0, 0]}
        self._weights: deque[Chunk] = deque()

    def _take(self, kind: ChunkKind, direction: int) -> Chunk:
        micro_batch = self._next[kind][direction]
        self._next[kind][direction] += 1
        chunk = Chunk(kind, micro_batch, self.virtual[direction])
        self.chunks.append(chunk)
        return chunk

    def forward(self, direction: int) -> None:
        self._take(ChunkKind.FORWARD, direction)

    def backward(self, direction: int, keep_weight: bool = False) -> None:
        """The input gradient; its weight gradient follows at once unless it is kept for later."""
        chunk = self._take(ChunkKind.BACKWARD, direction)
        weight = Chunk(ChunkKind.WEIGHT, chunk.micro_batch, chunk.virtual)
        if keep_weight:
            self._weights.append(weight)
        else:
            self.chunks.append(weight)

    def weight(self) -> None:
        self.chunks.append(self._weights.popleft())


def dualpipe(stages: int, micro_batches: int) -> PipelineOrder:
    """The order for an even number of stages, micro-batches even and at least twice the stages."""
    if stages % 2 or micro_batches % 2 or micro_batches < 2 * stages:
        why = "DualPipe needs even stages and an even number of micro-batches, at least two per stage"
        raise impossible(Schedule.DUALPIPE, stages, micro_batches, why)
    rows = tuple(tuple(_row(stage, stages, micro_batches // 2)) for stage in range(stages))
    return PipelineOrder(Schedule.DUALPIPE, rows, (*range(stages), *reversed(range(stages))), True)


def _row(stage: int, stages: int, half: int) -> list[Chunk]:
    second = 2 * stages - 1 - stage  # the second direction's chunk that lives on this stage
    near, far = (stage, second) if stage < stages // 2 else (second, stage)
    row = _Row(near, far)
    distance = min(stage, stages - 1 - stage)
    inner = stages // 2 - distance - 1
    for _ in range(2 * inner):
        row.forward(0)
    for _ in range(distance + 1):
        row.forward(0)
        row.forward(1)
    for _ in range(inner):
        row.backward(1, keep_weight=True)
        row.weight()
        row.forward(1)
    for _ in range(half - stages + distance + 1):
        row.forward(0)
        row.backward(1)
        row.forward(1)
        row.backward(0)
    for _ in range(inner):
        row.backward(1)
        row.forward(1)
        row.backward(0)
    _drain(row, distance, inner)
    return row.chunks


def _drain(row: _Row, distance: int, inner: int) -> None:
    """No forwards are left: half-way, weight gradients start to be kept for the bubble at the end."""
    keep = False
    for i in range(distance + 1):
        middle = i == (distance + 1) // 2
        keep = keep or (middle and distance % 2 == 1)
        row.backward(1, keep)
        keep = keep or (middle and distance % 2 == 0)
        row.backward(0, keep)
    for _ in range(inner):
        row.weight()
        row.backward(0, keep_weight=True)
    for _ in range(distance + 1):
        row.weight()
