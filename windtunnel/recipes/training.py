"""A training step of a model under a layout, as programs: per model chunk and micro-batch, and the optimizer.

The pieces stay apart so that a pipeline of thousands of cards and hundreds of micro-batches is priced from a
handful of programs; ``training_program`` writes one rank's whole step in order, as a recording would have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import Phase, Program, StepKind
from windtunnel.recipes.architecture import Architecture
from windtunnel.recipes.builder import ProgramBuilder
from windtunnel.recipes.chunk import (
    Direction,
    Part,
    chunk_program,
    exchange_of,
    exchange_program,
    optimizer_program,
)
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.groups import PIPELINE, groups_of
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.piece import collective, wait
from windtunnel.recipes.stages import ModelChunk, model_chunks
from windtunnel.specs.model import ModelSpec

RECEIVED, SENT = 1_000_000, 1_000_001
"""Work numbers of messages between stages, beyond those of what is gathered and reduced inside a part."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One entry of a stage's order: part of a micro-batch of a model chunk."""

    part: Part
    micro_batch: int
    virtual: int


@dataclass(slots=True)
class TrainingRecipe:
    """The programs of one step. Programs are made on first use and kept."""

    model: Architecture
    layout: Layout
    chunks: tuple[ModelChunk, ...]
    _kinds: tuple[int, ...] = ()  # equal chunks have the same number
    _programs: dict[tuple[object, ...], Program] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known: dict[object, int] = {}
        self._kinds = tuple(known.setdefault(chunk.layers, len(known)) for chunk in self.chunks)

    def program(self, virtual: int, part: Part, micro_batch: int, splits_backward: bool = False) -> Program:
        """One part of one micro-batch of chunk ``virtual``. Equal chunks share one program object."""
        exchange = exchange_of(self.layout, micro_batch)
        chunk = self.chunks[virtual]
        key = (self._kinds[virtual], part, exchange, splits_backward)
        if key not in self._programs:
            groups = groups_of(self.layout, chunk.stage)
            self._programs[key] = chunk_program(chunk, self.layout, part, exchange, groups, splits_backward)
        return self._programs[key]

    def exchange(self, virtual: int, direction: Direction) -> Program:
        """What data-parallel ranks exchange for chunk ``virtual`` of a pipeline, once a step."""
        chunk = self.chunks[virtual]
        key = (self._kinds[virtual], direction)
        if key not in self._programs:
            groups = groups_of(self.layout, chunk.stage)
            self._programs[key] = exchange_program(chunk, self.layout, direction, groups)
        return self._programs[key]

    def optimizer(self, stage: int) -> Program:
        """What ``stage`` does after its last backward."""
        own = [chunk for chunk in self.chunks if chunk.stage == stage]
        key = ("optimizer", *(self._kinds[chunk.virtual] for chunk in own))
        if key not in self._programs:
            self._programs[key] = optimizer_program(own, self.layout, groups_of(self.layout, stage))
        return self._programs[key]

    @property
    def boundary(self) -> TensorSpec:
        """What one stage sends the next for one micro-batch, on one rank."""
        return TensorSpec(self.layout.precision.activation, (self.layout.sequence_tokens, self.model.hidden))

    def received(self, unit: Unit) -> list[OpSpec]:
        """What a part waits for from another stage."""
        got = self._passed("recv", unit, -1 if unit.part is Part.FORWARD else 1, RECEIVED)
        return [*got, wait(RECEIVED)] if got else []

    def sent(self, unit: Unit) -> list[OpSpec]:
        """What a part hands on to another stage; nobody waits for it here, or two neighbours would for each other."""
        return self._passed("send", unit, 1 if unit.part is Part.FORWARD else -1, SENT)

    def _passed(self, name: str, unit: Unit, way: int, work: int) -> list[OpSpec]:
        """Between ``unit`` and the chunk before (-1) or after it (1), if there is one."""
        other = unit.virtual + way
        if self.layout.pipeline == 1 or unit.part is Part.WEIGHT or not 0 <= other < len(self.chunks):
            return []
        peer = self.chunks[other].stage * self.layout.stage_ranks
        return [collective(name, PIPELINE, self.boundary, self.boundary, work, peer=peer)]

    def parameters(self, stage: int) -> int:
        """Elements of the parameters that one rank of ``stage`` computes with."""
        return sum(c.parameters + c.expert_parameters for c in self.chunks if c.stage == stage)


def training_step(model: ModelSpec | Architecture, layout: Layout) -> TrainingRecipe:
    """The recipe of one step.

    Raises E206 for fewer layers than pipeline chunks, E209 for a mixer that cannot be built.
    """
    built = architecture_of(model) if isinstance(model, ModelSpec) else model
    return TrainingRecipe(built, layout, model_chunks(built, layout))


def training_program(
    recipe: TrainingRecipe, stage: int, order: Iterable[Unit], splits_backward: bool = False
) -> Program:
    """The whole step of the first rank of ``stage``; ``order`` is that of the pipeline schedule."""
    layout = recipe.layout
    rank = stage * layout.stage_ranks
    builder = ProgramBuilder(groups_of(layout, stage), rank=rank, world_size=layout.cards, name="recipe")
    own = [chunk.virtual for chunk in recipe.chunks if chunk.stage == stage]
    if layout.pipeline > 1:
        for virtual in own:
            builder.append(recipe.exchange(virtual, Direction.PARAMETERS))
    for unit in order:
        builder.add(recipe.received(unit), Phase.OTHER, "pipeline")
        builder.append(recipe.program(unit.virtual, unit.part, unit.micro_batch, splits_backward))
        builder.add(recipe.sent(unit), Phase.OTHER, "pipeline")
        last = unit.micro_batch == layout.micro_batches - 1 and unit.part is not Part.FORWARD
        if layout.pipeline > 1 and last and (unit.part is Part.WEIGHT) is splits_backward:
            builder.append(recipe.exchange(unit.virtual, Direction.GRADIENTS))
    builder.append(recipe.optimizer(stage))
    return builder.finish(
        StepKind.TRAIN,
        tokens=layout.tokens * layout.micro_batches,
        samples=layout.micro_batch * layout.micro_batches,
    )
