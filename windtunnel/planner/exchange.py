"""Data-parallel exchange of a pipeline: beside the chunks, once a step, on a stream of its own.

Parameters of a stage's chunks are gathered one after another from the step's start; the first forward of a
chunk cannot end before its parameters have arrived. Gradients of a chunk leave layer by layer during its last
backward, or after it under FSDP2; what is not through when the pipeline ends is exposed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from windtunnel.recipes.chunk import Direction
from windtunnel.recipes.training import TrainingRecipe
from windtunnel.timeline.pipeline import EarliestEnd, PipelineTiming
from windtunnel.timeline.schedule import Chunk, ChunkKind, PipelineOrder

ExchangeTime = Callable[[int, Direction], float]
"""Seconds of one chunk's exchange, alone on the wire."""


@dataclass(frozen=True, slots=True)
class PipelineExchange:
    """The exchange of one recipe."""

    recipe: TrainingRecipe
    seconds: ExchangeTime

    def earliest_end(self, plan: PipelineOrder) -> EarliestEnd:
        """When the first forward of each chunk can end at the earliest."""
        bounds: dict[int, float] = {}
        if self.recipe.layout.pipeline > 1:
            for stage in range(len(plan.stages)):
                arrived = 0.0
                for virtual in self._own(plan, stage):
                    arrived += self.seconds(self._chunk(virtual), Direction.PARAMETERS)
                    bounds[virtual] = arrived

        def bound(chunk: Chunk) -> float:
            if chunk.kind is ChunkKind.FORWARD and chunk.micro_batch == 0:
                return bounds.get(chunk.virtual, 0.0)
            return 0.0

        return bound

    def tail_s(self, plan: PipelineOrder, timing: PipelineTiming) -> float:
        """How long gradients still travel after the last stage has computed."""
        if self.recipe.layout.pipeline == 1:
            return 0.0
        done = timing.total_s
        kind = ChunkKind.WEIGHT if plan.splits_backward else ChunkKind.BACKWARD
        for stage, spans in enumerate(timing.spans):
            last = {s.chunk.virtual: s for s in spans if s.chunk.kind is kind}
            free = 0.0
            for virtual in sorted(self._own(plan, stage), key=lambda v: last[v].end_s):
                layers = max(1, len(self.recipe.chunks[self._chunk(virtual)].layers))
                length = self.seconds(self._chunk(virtual), Direction.GRADIENTS)
                span = last[virtual]
                if self.recipe.layout.shards_stages:
                    free = max(free, span.end_s) + length
                    continue
                # the first layer's gradients leave when its backward is done, the last one's at the end
                begin = max(free, span.start_s + (span.end_s - span.start_s) / layers)
                free = max(begin + length, span.end_s + length / layers)
            done = max(done, free)
        return done - timing.total_s

    def _own(self, plan: PipelineOrder, stage: int) -> list[int]:
        return [virtual for virtual, where in enumerate(plan.stage_of) if where == stage]

    def _chunk(self, virtual: int) -> int:
        return virtual % len(self.recipe.chunks)
