"""One question of memory: this model, this chip, this many cards, spread like this. And its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from windtunnel.estimate import Estimate
from windtunnel.memory.overhead import communication_bytes, usable_bytes
from windtunnel.memory.settings import AllocatorSettings
from windtunnel.memory.workspace import blas_workspace_bytes
from windtunnel.recipes.fit.inference import Deployment, inference_memory
from windtunnel.recipes.fit.parts import MemoryParts
from windtunnel.recipes.fit.replayed import replayed_memory
from windtunnel.recipes.fit.training import Adapters, Optimizer, training_memory
from windtunnel.recipes.layout import Layout, Precision, Recompute, Sharding
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.schema import Chip


class Mode(StrEnum):
    """What the model is to do."""

    INFER = "infer"
    TRAIN = "train"
    LORA = "lora"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuestion:
    """Everything that decides how much memory the fullest card needs.

    Attributes:
        batch: sequences on one data rank: in the cache (infer), or of one micro-batch (train, lora).
        sequence: tokens of each: prompt and answer together (infer), or of a training sample.
        micro_batches: of one step, for pipelines; at least as many as stages.
        precision: of weights (infer: ``inference.WEIGHT_BYTES``) or products (train: ``Precision``).
        prefill_tokens: most new tokens in one serving step.
        fused: whether norms, activations and the loss are single kernels when training.
    """

    model: ModelSpec
    chip: Chip
    cards: int = 1
    mode: Mode = Mode.INFER
    batch: int = 1
    sequence: int = 4096
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    context_parallel: int = 1
    precision: str = "bf16"
    cache_precision: str = "bf16"
    sharding: Sharding = Sharding.FSDP
    recompute: Recompute = Recompute.NONE
    optimizer: Optimizer = Optimizer.ADAMW
    adapters: Adapters = field(default_factory=Adapters)
    prefill_tokens: int = 8192
    fused: bool = True

    def layout(self) -> Layout:
        """The training layout. Raises WindtunnelError E205 where it does not multiply up."""
        data = max(1, self.cards // (self.tensor * self.pipeline * self.context_parallel))
        return Layout(
            cards=self.cards,
            global_batch=self.batch * data * self.pipeline,
            sequence=self.sequence,
            micro_batch=self.batch,
            tensor=self.tensor,
            pipeline=self.pipeline,
            context=self.context_parallel,
            expert=self.expert,
            precision=Precision(self.precision),
            recompute=self.recompute,
            sharding=self.sharding,
            fused=self.fused,
        )

    def deployment(self) -> Deployment:
        """The serving layout. Raises WindtunnelError E207 where it does not multiply up."""
        return Deployment(
            batch=self.batch,
            context=self.sequence,
            tensor=self.tensor,
            pipeline=self.pipeline,
            expert=self.expert,
            data=max(1, self.cards // (self.tensor * self.pipeline)),
            precision=self.precision,
            cache_precision=self.cache_precision,
            prefill_tokens=self.prefill_tokens,
        )

    def parts(self, *, counted: bool = False) -> MemoryParts:
        """Bytes by part on the fullest card. ``counted``: by formula also where buffers could be replayed."""
        if self.mode is Mode.INFER:
            parts = inference_memory(self.model, self.deployment())
            return _with_libraries(parts, self.chip, (self.tensor, self.pipeline, self.expert))
        adapters = self.adapters if self.mode is Mode.LORA else None
        layout = self.layout()
        if not counted and adapters is None:
            return replayed_on(self.chip, self.model, layout, self.optimizer)
        return training_on(self.chip, self.model, layout, self.optimizer, adapters)


def training_on(
    chip: Chip,
    model: ModelSpec,
    layout: Layout,
    optimizer: Optimizer = Optimizer.ADAMW,
    adapters: Adapters | None = None,
) -> MemoryParts:
    """Bytes by part of a training step on the fullest card, with what libraries hold on ``chip``; counted."""
    return _with_libraries(training_memory(model, layout, optimizer, adapters), chip, _degrees(layout))


def replayed_on(
    chip: Chip,
    model: ModelSpec,
    layout: Layout,
    optimizer: Optimizer = Optimizer.ADAMW,
    settings: AllocatorSettings | None = None,
) -> MemoryParts:
    """The same by replaying the step's buffers."""
    return _with_libraries(replayed_memory(chip, model, layout, optimizer, settings), chip, _degrees(layout))


def _degrees(layout: Layout) -> tuple[int, ...]:
    return layout.tensor, layout.pipeline, layout.expert, layout.data_and_context


def _with_libraries(parts: MemoryParts, chip: Chip, degrees: Sequence[int]) -> MemoryParts:
    return replace(parts, workspace=blas_workspace_bytes(chip), communication=communication_bytes(degrees))


@dataclass(frozen=True)
class FitAnswer:
    """Whether it fits. ``counted``: by formula only, for searches that ask often."""

    question: FitQuestion
    counted: bool = False

    @cached_property
    def parts(self) -> MemoryParts:
        """Bytes by part."""
        return self.question.parts(counted=self.counted)

    @cached_property
    def total(self) -> Estimate:
        """Bytes on the fullest card, driver context excluded."""
        return self.parts.estimate()

    @property
    def usable(self) -> int:
        """What the card has for it: its memory less the driver's context."""
        return usable_bytes(self.question.chip)

    @property
    def fits(self) -> bool:
        """Whether the best estimate is within what is usable."""
        return self.total.value <= self.usable

    @property
    def tight(self) -> bool:
        """Whether the interval holds both answers."""
        return self.total.low <= self.usable < self.total.high
