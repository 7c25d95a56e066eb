"""Memory of one training step on the fullest card of a layout.

Weights, gradients and optimizer state follow from counts. Activations are those of the micro-batches in
flight (1F1B: as many as stages follow; interleaving adds (p - 1) / (p v) of them, arXiv 2205.05198 section
4.2.3). Checked against measured peaks: `tests/accuracy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from windtunnel.recipes.fit.activations import (
    backward_bytes,
    backward_stages,
    kept_bytes,
    norm_bytes,
    whole_bytes,
)
from windtunnel.recipes.fit.moments import GroupMemory, fullest, idle_pools
from windtunnel.recipes.fit.parts import MemoryParts
from windtunnel.recipes.fit.sharding import (
    Held,
    ends_parameters,
    layer_parameters,
    mixer_parameters,
    stages,
)
from windtunnel.recipes.layout import Layout, Precision, Recompute, Sharding
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_ffn import Dense, Moe

LOSS_FUSED = 6
"""Bytes a logit at the loss: 16-bit logits and an FP32 copy that becomes the gradient in place."""

LOSS_EAGER = 12
"""Bytes a logit at the loss as PyTorch runs it: log-probabilities, their and the logits' gradient in FP32."""

LOSS_PARALLEL = 16
"""The same over tensor-parallel ranks (torch.distributed.tensor.parallel.loss): beside the log-probabilities, zeros
for the gradient, their exponential, and the sum of the two, in FP32."""

LOSS_COMPILED = 4
"""Bytes a logit at a compiled loss: logits and their gradient in 16 bits; what FP32 needs stays in registers."""


class Optimizer(StrEnum):
    """What the optimizer keeps for each parameter, in FP32."""

    ADAMW = "adamw"
    ADAM = "adam"
    MUON = "muon"
    SGD_MOMENTUM = "sgd-momentum"
    SGD = "sgd"

    @property
    def state_bytes(self) -> int:
        """Bytes a parameter, master copy excluded."""
        return {Optimizer.ADAMW: 8, Optimizer.ADAM: 8, Optimizer.SGD: 0}.get(self, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """LoRA (arXiv 2106.09685) of ``rank`` on attention, and on the feed-forward if ``all_products``."""

    rank: int = 16
    all_products: bool = False

    def parameters(self, model: ModelSpec) -> int:
        """Learned numbers of all adapters."""
        return sum(self._of_layer(model, index) for index in range(len(model.layers)))

    def _of_layer(self, model: ModelSpec, index: int) -> int:
        layer = model.layers[index]
        mixer = layer.mixer.parameters(model.hidden) // model.hidden + 4 * model.hidden if layer.mixer else 0
        ffn = 0
        if self.all_products and isinstance(layer.ffn, Dense):
            ffn = layer.ffn.products * (model.hidden + layer.ffn.width)
        elif self.all_products and isinstance(layer.ffn, Moe):
            ffn = layer.ffn.experts * layer.ffn.products * (model.hidden + layer.ffn.width)
        return self.rank * (mixer + ffn)


def training_memory(
    model: ModelSpec,
    layout: Layout,
    optimizer: Optimizer = Optimizer.ADAMW,
    adapters: Adapters | None = None,
) -> MemoryParts:
    """Bytes by part on the fullest card; library workspace and communication are the caller's.

    ``adapters``: train only these; the model's own weights are frozen and have no gradients.
    """
    return max(_by_stage(model, layout, optimizer, adapters), key=lambda parts: parts.allocated)


CLOSE = 0.95
"""Counting takes the chunks of a stage as equal: where they are not, the fullest stage may come to this much by it."""


def fullest_stages(model: ModelSpec, layout: Layout, optimizer: Optimizer = Optimizer.ADAMW) -> list[int]:
    """The pipeline stage that needs most, or those among which it is where chunks differ in their layers."""
    found = [parts.allocated for parts in _by_stage(model, layout, optimizer, None)]
    fewer = layout.first_layers_fewer + layout.last_layers_fewer
    uneven = fewer or len(model.layers) % (layout.pipeline * layout.chunks)
    if layout.chunks == 1 or not uneven:
        return [found.index(max(found))]
    return [stage for stage, need in enumerate(found) if need >= CLOSE * max(found)]


def _by_stage(
    model: ModelSpec, layout: Layout, optimizer: Optimizer, adapters: Adapters | None
) -> list[MemoryParts]:
    split = stages(model, layout.pipeline, layout.first_layers_fewer, layout.last_layers_fewer)
    return [
        _stage_memory(model, layout, optimizer, adapters, number, layers)
        for number, layers in enumerate(split)
    ]


def _stage_memory(
    model: ModelSpec,
    layout: Layout,
    optimizer: Optimizer,
    adapters: Adapters | None,
    stage: int,
    layers: range,
) -> MemoryParts:
    kept = [
        layer_parameters(model, model.layers[i], layout.tensor, layout.expert, layout.expert_tensor)
        for i in layers
    ]
    ends = ends_parameters(model, stage, layout.pipeline, layout.tensor)
    held = Held(ends + sum(item.dense for item in kept), sum(item.expert for item in kept))
    unit = ends
    if layout.ends_apart:
        unit = max(
            ends - model.embedding_parameters // layout.tensor, model.embedding_parameters // layout.tensor
        )
    largest = max([unit, *(item.total for item in kept)])
    weights, gradients, state = _states(held, layout, optimizer)
    if adapters is not None:
        weights, gradients, state = _adapted(model, held, layout, optimizer, adapters, weights)
    if layout.sharding is Sharding.FSDP and layout.pipeline == 1:
        groups = _groups(model, layout, kept, adapters is None)
        loss = _logit_bytes(layout) * layout.tokens * model.vocabulary / layout.tensor
        moment = fullest(groups, loss, layout, adapters is None)
        return MemoryParts(
            weights=weights,
            gradients=int(moment.gradients) if adapters is None else gradients,
            optimizer=state,
            activations=int(moment.activations),
            working=int(moment.working + moment.gathered),
            pools=int(idle_pools(groups, moment, layout, adapters is None)),
        )
    beside = _gathered(layout, largest, held.total, adapters is not None)
    beside += 0 if adapters is not None else _placeholders(model, layout, layers)
    activations = _in_flight(layout, stage) * sum(kept_bytes(model, model.layers[i], layout) for i in layers)
    return MemoryParts(
        weights=weights,
        gradients=gradients,
        optimizer=state,
        activations=int(activations),
        working=int(_working(model, layout, stage, layers)) + beside,
    )


def _groups(model: ModelSpec, layout: Layout, held: list[Held], trains: bool) -> list[GroupMemory]:
    """The FSDP units of the whole model: embedding, layers, last norm with the output product."""
    rows, tokens = layout.sequence_tokens, layout.tokens
    stream = 2.0 * model.hidden * rows * model.streams
    again = layout.recompute not in (Recompute.NONE, Recompute.SELECTIVE)
    embedding = ends_parameters(model, 0, 2, layout.tensor)
    output = ends_parameters(model, 0, 1, layout.tensor) - embedding
    if model.tied or not layout.ends_apart:  # one unit, which stays gathered
        embedding, output = 0, embedding + output
    between = [
        GroupMemory(
            parameters=own.total,
            shard=_shared(own, layout),
            kept=kept_bytes(model, layer, layout),
            again=whole_bytes(model, layer, layout) if again else 0.0,
            stages=tuple(backward_stages(model, layer, layout)),
            behind=stream,
        )
        for own, layer in zip(held, model.layers, strict=True)
    ]
    first = GroupMemory(
        parameters=embedding, shard=-(-embedding // layout.shards), stages=((stream, embedding),)
    )
    last = GroupMemory(
        parameters=output,
        shard=-(-output // layout.shards),
        kept=(norm_bytes(model.norm, layout) + 2) / 2 * stream,
        stages=((2.0 * tokens * model.vocabulary / layout.tensor + stream, output),),
        behind=stream,
    )
    return [first, *between, last]


def _states(held: Held, layout: Layout, optimizer: Optimizer) -> tuple[int, int, int]:
    """Weights, gradients, optimizer state in bytes."""
    full = layout.precision is Precision.FP32
    if layout.sharding is Sharding.FSDP:
        # PyTorch's FSDP keeps parameters, gradients and state in FP32 shards
        own = _shared(held, layout)
        return 4 * own, 4 * own, optimizer.state_bytes * own
    gradient = 4 if layout.reduce_in_fp32 or full else 2
    master = 0 if full else 4
    copies = 2 * held.total if layout.precision.is_fp8 else 0  # FP8 weights and their transposes
    whole = 0 if copies and layout.fp8_parameters else 2  # the FP8 copies are all there is
    owner = _shared(held, layout) if layout.sharding is Sharding.ZERO1 else held.total
    return (
        (4 if full else whole) * held.total + copies,
        gradient * held.total,
        (master + optimizer.state_bytes) * owner,
    )


def _shared(held: Held, layout: Layout) -> int:
    """Parameters that a rank owns after sharing with its data-parallel peers."""
    expert_ranks = max(1, layout.expert_data * layout.shards // layout.data_and_context)
    return -(-held.dense // layout.shards) + -(-held.expert // expert_ranks)


def _adapted(
    model: ModelSpec, held: Held, layout: Layout, optimizer: Optimizer, adapters: Adapters, whole: int
) -> tuple[int, int, int]:
    """Frozen weights without gradients; adapters with all three, in FP32 and not shared out."""
    per_weight = {Precision.FP32: 4}.get(layout.precision, 1 if layout.precision.is_fp8 else 2)
    frozen = per_weight * (_shared(held, layout) if layout.sharding is Sharding.FSDP else held.total)
    own = -(-adapters.parameters(model) // (layout.tensor * layout.pipeline))
    return frozen + 4 * own, 4 * own, optimizer.state_bytes * own


def _placeholders(model: ModelSpec, layout: Layout, layers: range) -> int:
    """Gradients that stand in while the true ones are added up in FP32.

    Transformer Engine returns one 16-bit tensor for each shape of weight and keeps it for good
    (``get_dummy_wgrad``); all layers, and all experts, of one shape share it.
    """
    if not layout.fused or layout.sharding is Sharding.FSDP:
        return 0
    mixers = {model.layers[i].mixer for i in layers}
    ffns = {model.layers[i].ffn for i in layers}
    total = sum(mixer_parameters(mixer, model.hidden, layout.tensor) for mixer in mixers if mixer)
    for ffn in ffns:
        if isinstance(ffn, Dense):
            total += ffn.parameters(model.hidden) // layout.tensor
        elif ffn is not None:
            total += ffn.expert_parameters(model.hidden) // layout.expert_tensor
    return 2 * total


def _in_flight(layout: Layout, stage: int) -> float:
    """Micro-batches whose activations a stage holds at once."""
    if layout.pipeline == 1:
        return 1.0
    if layout.schedule == "gpipe":
        return float(layout.micro_batches)
    if layout.chunks > 1:
        most = layout.pipeline * (1 + (layout.pipeline - 1) / (layout.pipeline * layout.chunks))
        return min(most - 2 * stage / layout.chunks, float(layout.micro_batches))
    return float(min(layout.pipeline - stage, layout.micro_batches))


def _working(model: ModelSpec, layout: Layout, stage: int, layers: range) -> float:
    """On top of kept activations at the fullest moment: the loss, or the backward pass of one layer."""
    loss = 0.0
    if stage == layout.pipeline - 1:
        loss = _logit_bytes(layout) * layout.tokens * model.vocabulary / layout.tensor
    again = layout.recompute not in (Recompute.NONE, Recompute.SELECTIVE)
    layer = max(
        (
            backward_bytes(model, model.layers[i], layout)
            + (whole_bytes(model, model.layers[i], layout) if again else 0.0)
            for i in layers
        ),
        default=0.0,
    )
    return max(loss, layer)


def _logit_bytes(layout: Layout) -> int:
    """PyTorch's own sharding compiles the layers, and the loss if told to; Megatron's loss is one kernel."""
    if layout.sharding is not Sharding.FSDP:
        return LOSS_FUSED if layout.fused else LOSS_EAGER
    if layout.compiled_loss:
        return LOSS_COMPILED
    return LOSS_PARALLEL if layout.tensor > 1 else LOSS_EAGER


def _gathered(layout: Layout, largest: int, held: int, frozen: bool) -> int:
    """Whole parameters and gradients under FSDP: of the layer at work and the next, with a pipeline of all.

    PyTorch's stages keep what they gathered for the next micro-batch, and sum gradients whole until the last one
    (``PipelineStage.backward_maybe_with_nosync``), in the dtype that reduces.
    """
    if layout.sharding is not Sharding.FSDP:
        return 0
    width = 4 if layout.precision is Precision.FP32 else 2
    reduced = 4 if layout.reduce_in_fp32 else 2
    if layout.pipeline > 1:
        return held * (width + (0 if frozen else reduced))
    return largest * (2 * width + (0 if frozen else reduced + width))
