"""A step cannot be shorter than this: kernels and blocking collectives of the busiest stage, and the fill.

Everything that could be hidden (gradient exchange, collectives beside compute, expert exchange that another
micro-batch hides) is left out, and so is the host. A search therefore may stop at the first layout whose
bound is above the best step found. Layers are priced once for each distinct shape and split, so that a
thousand layouts take no longer than their distinct layers do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from windtunnel.network.collective import Collective, kind_of
from windtunnel.planner.training import TrainingPredictor
from windtunnel.program.marks import COLLECTIVE_PREFIX
from windtunnel.program.op import OpSpec
from windtunnel.program.program import Phase, StepKind
from windtunnel.recipes.architecture import Architecture, LayerShape
from windtunnel.recipes.builder import ProgramBuilder
from windtunnel.recipes.groups import groups_of
from windtunnel.recipes.layers.ends import embedding, head
from windtunnel.recipes.layout import Layout, Sharding
from windtunnel.recipes.recompute import recomputed
from windtunnel.recipes.stages import Pieces, layer_counts, layer_pieces
from windtunnel.timeline.schedule import Schedule

_FILL = (Schedule.GPIPE, Schedule.ONE_F_ONE_B, Schedule.INTERLEAVED)
_EXPERT = (Collective.DISPATCH, Collective.COMBINE)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Seconds of one layer for one micro-batch: forward, and everything that backward does."""

    forward_s: float
    backward_s: float


class StepBound:
    """Lower bounds for one model on one predictor's chip and network."""

    def __init__(self, predictor: TrainingPredictor, model: Architecture) -> None:
        self._predictor = predictor
        self._model = model
        self._layers: dict[tuple[object, Layout], _Layer] = {}

    def seconds(self, layout: Layout) -> float:
        """No step of ``layout`` is shorter. Raises E206 for fewer layers than chunks, and what pricing raises."""
        stages = self._stages(layout)
        fills = layout.schedule in _FILL
        bound = before = 0.0
        for forward_s, backward_s in stages:
            busy = layout.micro_batches * (forward_s + backward_s)
            # earlier stages pass the first micro-batch on before, and the last one's gradients after
            bound = max(bound, busy + (before if fills else 0.0))
            before += (forward_s + backward_s) / layout.chunks
        return bound

    def _stages(self, layout: Layout) -> list[tuple[float, float]]:
        """Forward and backward of one micro-batch on every stage."""
        counts = layer_counts(self._model, layout)
        sums = [[0.0, 0.0] for _ in range(layout.pipeline)]
        begin = 0
        for virtual, count in enumerate(counts):
            own = sums[virtual % layout.pipeline]
            for shape in self._model.layers[begin : begin + count]:
                layer = self._layer(shape, layout)
                own[0] += layer.forward_s
                own[1] += layer.backward_s
            begin += count
        for end, stage in (("embedding", 0), ("head", layout.pipeline - 1)):
            layer = self._layer(end, layout)
            sums[stage][0] += layer.forward_s
            sums[stage][1] += layer.backward_s
        return [(forward_s, backward_s) for forward_s, backward_s in sums]

    def _layer(self, shape: LayerShape | str, layout: Layout) -> _Layer:
        alone = _without_pipeline(layout)
        key = (shape, alone)
        if key not in self._layers:
            pieces = self._pieces(shape, alone)
            forward = [op for piece in pieces for op in piece.forward]
            backward = [op for piece in recomputed(pieces, alone) for op in piece.forward]
            backward += [op for piece in pieces for op in (*piece.backward, *piece.weight)]
            self._layers[key] = _Layer(self._sum(forward, alone), self._sum(backward, alone))
        return self._layers[key]

    def _pieces(self, shape: LayerShape | str, layout: Layout) -> Pieces:
        if isinstance(shape, LayerShape):
            return layer_pieces(shape, self._model.hidden, layout)
        if shape == "embedding":
            return embedding(self._model, layout)
        return head(self._model, layout, self._model.layers[-1].norm)

    def _sum(self, ops: list[OpSpec], layout: Layout) -> float:
        builder = ProgramBuilder(groups_of(layout), rank=0, world_size=layout.cards, name="bound")
        builder.add(ops, Phase.FORWARD)
        program = builder.finish(StepKind.SCRIPT)
        counts = np.bincount(program.sites[program.events, 0], minlength=len(program.specs))
        counts[[self._may_hide(spec, layout) for spec in program.specs]] = 0
        return float(counts @ self._predictor.device_seconds(program, layout))

    def _may_hide(self, spec: OpSpec, layout: Layout) -> bool:
        if not spec.name.startswith(COLLECTIVE_PREFIX):
            return False
        hides = layout.overlap_experts or layout.schedule == Schedule.DUALPIPE
        return spec.attribute("async_op") is True or (hides and kind_of(spec.name) in _EXPERT)


def _without_pipeline(layout: Layout) -> Layout:
    """The layout with only what decides one layer's operations, so that equal ones are priced once."""
    inner = layout.tensor * layout.context
    cards = inner * layout.expert * layout.expert_tensor
    return replace(
        layout,
        cards=cards,
        global_batch=layout.micro_batch * cards // inner,
        pipeline=1,
        chunks=1,
        schedule=Schedule.DUALPIPE if layout.schedule == Schedule.DUALPIPE else "1f1b",
        sharding=Sharding.DDP,
        fsdp_shard=0,
    )
