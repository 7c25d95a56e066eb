"""Memory of a training step by replaying its buffers, as a recording's are replayed.

Slower than counting (tenths of a second for a large model, ``training.py`` needs a millisecond), and more exact: what
the allocator holds beside live memory follows from the order of births and frees.
"""

from __future__ import annotations

from windtunnel.memory.replay import memory_result
from windtunnel.memory.settings import AllocatorSettings
from windtunnel.program.program import Category
from windtunnel.recipes.fit.parts import MemoryParts
from windtunnel.recipes.fit.training import Optimizer, fullest_stages
from windtunnel.recipes.layout import Layout, Sharding
from windtunnel.recipes.memory.training import sharded_program, stage_program
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.schema import Chip


def replayed_memory(
    chip: Chip,
    model: ModelSpec,
    layout: Layout,
    optimizer: Optimizer = Optimizer.ADAMW,
    settings: AllocatorSettings | None = None,
    patches: int = 0,
) -> MemoryParts:
    """Bytes by part on the fullest card of ``chip``; library workspace and communication are the caller's.

    ``patches``: of the pictures of every sequence, for a model with a vision tower. The fullest stage of a pipeline
    is the one that counting finds fullest.
    """
    if layout.sharding is Sharding.FSDP and layout.pipeline == 1:
        programs = [sharded_program(model, layout, optimizer.state_bytes, patches)]
    else:
        stages = fullest_stages(model, layout, optimizer) if layout.pipeline > 1 else [0]
        programs = [stage_program(model, layout, optimizer.state_bytes, stage) for stage in stages]
    found = max(
        (memory_result(program, chip, settings) for program in programs),
        key=lambda result: result.peak_active_bytes.value,
    )
    at_peak = dict(found.peak_by_category)

    def part(category: Category) -> int:
        return at_peak.pop(category.name.lower(), 0)

    return MemoryParts(
        weights=part(Category.PARAMETER),
        gradients=part(Category.GRADIENT),
        optimizer=part(Category.OPTIMIZER_STATE),
        activations=part(Category.ACTIVATION),
        working=sum(at_peak.values()),
        cached=int(found.peak_reserved_bytes.value - found.peak_active_bytes.value),
    )
