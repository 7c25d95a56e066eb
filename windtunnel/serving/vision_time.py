"""Seconds that pictures cost before their tokens reach the language model: the vision tower and its merger.

The tower runs on the tensor-parallel ranks in 16 bit, once for every picture that the cache does not hold, in the
step that reads its tokens. Its kernels are issued one by one (engines do not capture it), so the host may bind.
"""

from __future__ import annotations

from dataclasses import replace

from windtunnel.program.op import OpSpec
from windtunnel.recipes.architecture import Architecture, VisionTower
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Layout, Precision
from windtunnel.recipes.linear import Products
from windtunnel.recipes.serving import ServingLayout, forward_step
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.grid import Line, geometric

PATCHES_MAX = 1 << 17


class VisionTime:
    """Seconds of the tower of ``deployment``'s model by patches of one picture; 0 for models that do not see."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._line = Line(geometric(64, PATCHES_MAX, 4), self._exact)
        self.sees = deployment.model.vision is not None
        self.merge = deployment.model.vision.merge if deployment.model.vision else 1

    def seconds(self, tokens: int) -> float:
        """A picture that becomes ``tokens`` tokens."""
        return self._line.at(tokens * self.merge) if self.sees and tokens > 0 else 0.0

    def _exact(self, patches: int) -> float:
        tower = architecture_of(self._deployment.model, patches).vision
        assert tower is not None
        total = self._deployment.step.prices.total(tower_operations(tower, self._deployment.layout))
        return max(total.device, total.host)


def tower_operations(tower: VisionTower, layout: ServingLayout) -> list[OpSpec]:
    """One picture of ``tower.patches`` patches through the tower on one rank."""
    blocks = Architecture(
        hidden=tower.hidden, vocabulary=layout.tensor, layers=tower.layers, tied=False, learned_positions=0
    )
    plain = replace(layout, precision=Precision.BF16, graphs=False)
    program = forward_step(blocks, plain, [Batch(sequences=1, new=tower.patches, context=0)])
    ops = [program.specs[program.site(event).spec] for event in program.events.tolist()]
    merged, groups = tower.hidden * tower.merge, max(1, tower.patches // tower.merge)
    products = Products(Layout(cards=1, global_batch=1, sequence=tower.patches, precision=Precision.BF16))
    ways = layout.tensor
    return [
        *products.product(tower.patches, tower.hidden, tower.patch_elements),
        *ops,
        *products.product(groups, -(-merged // ways), merged),
        *products.product(groups, tower.output, -(-merged // ways)),
    ]
