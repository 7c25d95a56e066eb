"""Seconds of a vision tower on the images of a step, from the same prices as the rest.

Every image attends to itself alone, so images are priced one by one; layers are split over the tensor-parallel
ranks of the language model as engines do by default, in 16 bit, without captured graphs.
"""

from __future__ import annotations

from dataclasses import replace

from windtunnel.program.op import OpSpec
from windtunnel.recipes.architecture import Architecture, VisionTower
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.piece import op, tensor
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.grid import Line, geometric
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.step_time import StepTime
from windtunnel.specs.cluster import Cluster

PATCHES_MAX = 1 << 18
_VOCABULARY = 8  # a tower has no vocabulary: the head is priced apart and left out


class TowerTime:
    """Seconds of one image by its patches."""

    def __init__(self, tower: VisionTower, layout: ServingLayout, cluster: Cluster, stack: Stack) -> None:
        self.tower = tower
        plain = replace(
            layout, data=1, expert=1, precision=Precision.BF16, cache="bfloat16", graphs=False, redundant=0
        )
        blocks = Architecture(hidden=tower.hidden, vocabulary=_VOCABULARY, layers=tower.layers)
        self._blocks = StepTime(blocks, plain, cluster, stack=stack)
        self._line = Line(geometric(16, PATCHES_MAX, 4), self._seconds)

    @property
    def merge(self) -> int:
        """Patches of one token of the language model."""
        return self.tower.merge

    def seconds(self, patches: int) -> float:
        """One image."""
        return self._line.at(patches)

    def _seconds(self, patches: int) -> float:
        batch = Batch(sequences=1, new=patches)
        total = self._blocks.layers(batch).plus(self._blocks.prices.total(self._ends(patches)))
        return max(total.device, total.host)

    def _ends(self, patches: int) -> list[OpSpec]:
        """Patch embedding and merger."""
        tower = self.tower
        merged, groups = tower.hidden * tower.merge, max(1, patches // tower.merge)
        shapes = (
            (patches, tower.patch_elements, tower.hidden),
            (groups, merged, merged),
            (groups, merged, tower.output),
        )
        return [
            op(
                "aten.mm",
                (tensor("bfloat16", rows, wide_in), tensor("bfloat16", wide_in, wide_out)),
                (tensor("bfloat16", rows, wide_out),),
            )
            for rows, wide_in, wide_out in shapes
        ]
