"""Programs of one model chunk for one micro-batch: forward, backward, weight gradients, data ranks' exchange.

What data-parallel ranks exchange, and when:
    ddp, zero1   gradients of each layer after the last micro-batch's backward; with zero1 parameters of each
                 layer before the first micro-batch's forward; both beside compute unless told otherwise
    fsdp         parameters of each layer before it is used, one layer ahead; gradients after its backward;
                 for every micro-batch
A pipeline spreads that over its whole step: parameters stay gathered between micro-batches, and the programs
of ``exchange_program`` run beside the chunks. Under FSDP2 the first micro-batch gathers, or the schedule does so ahead
for stages of several chunks; every backward adds whole gradients to those before it, in the type that reduces, and a
chunk's are reduced after its last backward (``PipelineStage.backward_maybe_with_nosync``, ``perform_reduce_grad``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum

from windtunnel.program.count.sharding import CHUNK_CAT, COPY_IN, COPY_OUT
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import Phase, ProcessGroup, Program, StepKind
from windtunnel.recipes.builder import ProgramBuilder
from windtunnel.recipes.groups import DATA, EXPERT_DATA, REPLICA, SHARD
from windtunnel.recipes.layers.megatron_local import adam
from windtunnel.recipes.layout import EagerCode, GraphScope, Layout, Sharding
from windtunnel.recipes.linear import FP8_FORWARD
from windtunnel.recipes.piece import Piece, collective, op, tensor, wait
from windtunnel.recipes.recompute import is_end, recomputed
from windtunnel.recipes.stages import ModelChunk, Pieces

_GATHER, _REDUCE = 1000, 2000  # work numbers: plus twice the layer, plus one for experts


class Part(StrEnum):
    """What of a micro-batch a program holds; the values are those of pipeline schedules."""

    FORWARD = "F"
    BACKWARD = "B"
    WEIGHT = "W"


_PHASES = {Part.FORWARD: Phase.FORWARD, Part.BACKWARD: Phase.BACKWARD, Part.WEIGHT: Phase.BACKWARD}


class Sums(Enum):
    """What a micro-batch does with the whole gradients of a layer."""

    NOT = 0
    FIRST = 1  # kept, in the type that reduces
    MORE = 2  # added to those


@dataclass(frozen=True, slots=True)
class Exchange:
    """Whether this micro-batch gathers parameters before, and reduces or sums gradients after, each layer."""

    gather: bool
    reduce: bool
    sums: Sums = Sums.NOT


def exchange_of(layout: Layout, micro_batch: int) -> Exchange:
    """What the chunk exchanges for a micro-batch by its number in the step."""
    first, last = micro_batch == 0, micro_batch == layout.micro_batches - 1
    alone = layout.data_and_context == 1 and layout.expert_data == 1
    if layout.shards_stages and not alone:
        return Exchange(first and layout.chunks == 1, False, Sums.FIRST if first else Sums.MORE)
    if alone or layout.pipeline > 1:
        return Exchange(False, False)
    if layout.sharding is Sharding.FSDP:
        return Exchange(True, True)
    gather = first and layout.sharding is Sharding.ZERO1 and layout.overlap_param_gather
    return Exchange(gather, last and layout.overlap_grad_reduce)


def chunk_program(
    chunk: ModelChunk,
    layout: Layout,
    part: Part,
    exchange: Exchange,
    groups: list[ProcessGroup],
    splits_backward: bool,
) -> Program:
    """One part of one micro-batch of one chunk."""
    rank = chunk.stage * layout.stage_ranks
    builder = ProgramBuilder(groups, rank=rank, world_size=layout.cards, name=f"chunk {chunk.virtual} {part}")
    whole, phase = GraphScope.STEP in layout.graphs, _PHASES[part]
    if whole:
        builder.captured(phase, begins=True)
    if part is Part.FORWARD:
        _forward(builder, chunk, layout, exchange)
    elif part is Part.BACKWARD:
        _backward(builder, chunk, layout, exchange, with_weights=not splits_backward)
    else:
        for pieces in reversed(chunk.layers):
            _issue(builder, reversed(pieces), Phase.BACKWARD, lambda piece: piece.weight)
        if exchange.reduce:
            for index in reversed(range(len(chunk.layers))):
                builder.add(_reduce(chunk.layers[index], index, layout), Phase.BACKWARD, "gradients")
            for index in reversed(range(len(chunk.layers))):
                builder.add(_waits(chunk.layers[index], index, _REDUCE, layout), Phase.BACKWARD, "gradients")
        for pieces in reversed(chunk.layers):
            builder.add(_sum(pieces, layout, exchange.sums), Phase.BACKWARD, "gradients")
    if whole:
        builder.captured(phase, begins=False)
    return builder.finish(StepKind.SCRIPT, tokens=layout.tokens, samples=layout.micro_batch)


def _issue(
    builder: ProgramBuilder, pieces: Iterable[Piece], phase: Phase, ops: Callable[[Piece], tuple[OpSpec, ...]]
) -> None:
    """Operations of pieces in order; neighbours that are captured are launched as one graph."""
    inside = False
    for piece in pieces:
        if piece.graphed is not inside:
            inside = piece.graphed
            builder.captured(phase, begins=inside)
        builder.add(ops(piece), phase, piece.name)
    if inside:
        builder.captured(phase, begins=False)


def _forward(builder: ProgramBuilder, chunk: ModelChunk, layout: Layout, exchange: Exchange) -> None:
    layers = chunk.layers
    if exchange.gather and layers:
        builder.add(_gather(layers[0], 0, layout), Phase.FORWARD, "parameters")
    for index, pieces in enumerate(layers):
        if exchange.gather:
            if index + 1 < len(layers):
                builder.add(_gather(layers[index + 1], index + 1, layout), Phase.FORWARD, "parameters")
            builder.add(_waits(pieces, index, _GATHER, layout), Phase.FORWARD, "parameters")
        _issue(builder, pieces, Phase.FORWARD, lambda piece: piece.forward)


def _backward(
    builder: ProgramBuilder, chunk: ModelChunk, layout: Layout, exchange: Exchange, with_weights: bool
) -> None:
    layers = chunk.layers
    again = exchange.gather and layout.sharding is Sharding.FSDP and not layout.shards_stages
    # the output's unit keeps its parameters after forward; the embedding is in it where they are tied or in the root
    apart = layout.ends_apart and bool(layers) and _has_head(layers[-1])
    stays = ("loss",) if apart else ("loss", "embedding")
    gathered = [i for i, pieces in enumerate(layers) if again and not any(p.name in stays for p in pieces)]
    if gathered:
        builder.add(_gather(layers[gathered[-1]], gathered[-1], layout), Phase.BACKWARD, "parameters")
    for index in reversed(range(len(layers))):
        pieces = layers[index]
        if index in gathered:
            if index - 1 in gathered:
                builder.add(_gather(layers[index - 1], index - 1, layout), Phase.BACKWARD, "parameters")
            builder.add(_waits(pieces, index, _GATHER, layout), Phase.BACKWARD, "parameters")
        _issue(builder, recomputed(pieces, layout), Phase.RECOMPUTE, lambda piece: piece.forward)
        both = (
            (lambda piece: piece.backward + piece.weight) if with_weights else (lambda piece: piece.backward)
        )
        _issue(builder, reversed(pieces), Phase.BACKWARD, both)
        if with_weights:
            builder.add(_sum(pieces, layout, exchange.sums), Phase.BACKWARD, "gradients")
        if exchange.reduce and with_weights:
            builder.add(_reduce(pieces, index, layout), Phase.BACKWARD, "gradients")
    if exchange.reduce and with_weights:
        for index in reversed(range(len(layers))):
            builder.add(_waits(layers[index], index, _REDUCE, layout), Phase.BACKWARD, "gradients")


def _has_head(pieces: Pieces) -> bool:
    """Whether the output product has a matrix of its own."""
    return not is_end(pieces) or any(piece.name == "head" and piece.parameters for piece in pieces)


def _parameters(pieces: Pieces, layout: Layout) -> tuple[tuple[int, int], ...]:
    """(elements, is expert) of what data-parallel ranks exchange and the optimizer updates in a layer."""
    if not layout.trains_base and layout.sharding is not Sharding.FSDP:
        adapters = sum(piece.adapter_parameters for piece in pieces)
        return ((adapters, 0),) if adapters else ()
    shared = sum(piece.parameters for piece in pieces)
    experts = sum(piece.expert_parameters for piece in pieces)
    if layout.sharding is Sharding.FSDP and layout.expert * layout.expert_tensor == 1:
        shared, experts = shared + experts, 0  # one unit, shared out over the same ranks
    return tuple((count, kind) for count, kind in ((shared, 0), (experts, 1)) if count)


def _ways(layout: Layout, is_expert: int) -> tuple[int, int]:
    """(group, its size) over which parameters are shared out."""
    if is_expert:
        return EXPERT_DATA, layout.expert_data
    if layout.sharding is Sharding.FSDP:
        return SHARD, layout.shards
    return DATA, layout.data_and_context


def _copies(layout: Layout) -> bool:
    """Whether shards are laid end to end in a buffer, and what was gathered is copied out of it (FSDP2)."""
    return layout.sharding is Sharding.FSDP and not layout.zero_copy


def _gather(pieces: Pieces, index: int, layout: Layout) -> list[OpSpec]:
    answers = []
    for elements, is_expert in _parameters(pieces, layout):
        group, ways = _ways(layout, is_expert)
        if ways > 1:
            eight_bit = layout.fp8_parameters and not is_end(pieces)
            dtype = FP8_FORWARD if eight_bit else layout.precision.activation
            part, whole = tensor(dtype, -(-elements // ways)), tensor(dtype, -(-elements // ways) * ways)
            if _copies(layout):  # FP32 shards are cast, and laid end to end in the buffer
                answers.append(op("aten._foreach_copy_", (part, tensor("float32", *part.shape)), ()))
                answers.append(op(COPY_IN, (part, whole), (part, whole)))
            answers.append(
                collective("_allgather_base_", group, part, whole, _GATHER + 2 * index + is_expert)
            )
        elif is_expert and layout.wraps_single:
            own = tensor(layout.precision.activation, elements)
            answers.append(op("aten._to_copy", (tensor("float32", elements),), (own,)))
            answers.append(op("aten.copy_", (own, own), (own,)))
    return answers


def _reduce(pieces: Pieces, index: int, layout: Layout) -> list[OpSpec]:
    answers = [spec for piece in pieces for spec in piece.summed]
    dtype = "float32" if layout.reduce_in_fp32 else layout.precision.activation
    for elements, is_expert in _parameters(pieces, layout):
        group, ways = _ways(layout, is_expert)
        if ways <= 1:
            if is_expert and layout.wraps_single:
                answers += _reduce_alone(elements, dtype, layout)
            continue
        part, whole = tensor(dtype, -(-elements // ways)), tensor(dtype, -(-elements // ways) * ways)
        work = _REDUCE + 2 * index + is_expert
        if layout.sharding is Sharding.DDP:
            answers.append(collective("allreduce_", group, whole, whole, work))
            continue
        if _copies(layout):
            answers.append(_chunk_cat(whole, layout))
        answers.append(collective("_reduce_scatter_base_", group, whole, part, work))
        copies = layout.data_and_context // layout.shards
        if layout.sharding is Sharding.FSDP and copies > 1 and not is_expert:
            answers.append(collective("allreduce_", REPLICA, part, part, work))
    return answers


def _chunk_cat(whole: TensorSpec, layout: Layout) -> OpSpec:
    """Gradients laid end to end by rank; those of a pipeline have the type that reduces already."""
    own = whole.dtype if layout.shards_stages else layout.precision.activation
    return op(CHUNK_CAT, (tensor(own, *whole.shape), whole), ())


def _reduce_alone(elements: int, dtype: str, layout: Layout) -> list[OpSpec]:
    """Of one rank: laid end to end, divided and copied where a sum over ranks would go (``foreach_reduce``)."""
    whole = tensor(dtype, elements)
    divided = op("aten.div.Tensor", (whole,), (whole,))
    return [_chunk_cat(whole, layout), divided, op("aten.copy_", (whole, whole), (whole,))]


def _sum(pieces: Pieces, layout: Layout, sums: Sums) -> list[OpSpec]:
    """Whole gradients of a layer, kept for the next micro-batch."""
    own = layout.precision.activation
    reduced = "float32" if layout.reduce_in_fp32 else own
    answers = []
    for elements, _ in _parameters(pieces, layout) if sums is not Sums.NOT else ():
        gradient, total = tensor(own, elements), tensor(reduced, elements)
        if sums is Sums.MORE:
            answers.append(op("aten.add_.Tensor", (total, gradient), (total,)))
        elif own != reduced:
            answers.append(op("aten._to_copy", (gradient,), (total,)))
    return answers


def _waits(pieces: Pieces, index: int, base: int, layout: Layout) -> list[OpSpec]:
    answers = []
    for elements, kind in _parameters(pieces, layout):
        _, ways = _ways(layout, kind)
        if ways <= 1:
            continue
        answers.append(wait(base + 2 * index + kind))
        if base == _GATHER and _copies(layout):
            whole = tensor(layout.precision.activation, -(-elements // ways) * ways)
            answers.append(op(COPY_OUT, (whole, whole), ()))
    return answers


class Direction(StrEnum):
    """What data-parallel ranks exchange."""

    PARAMETERS = "parameters"
    GRADIENTS = "gradients"


def exchange_program(
    chunk: ModelChunk, layout: Layout, direction: Direction, groups: list[ProcessGroup]
) -> Program:
    """What one chunk of a pipeline exchanges once a step, beside compute or, under FSDP2, after its last backward.

    Empty where the micro-batches or the optimizer have it.
    """
    name = f"chunk {chunk.virtual} {direction}"
    rank = chunk.stage * layout.stage_ranks
    builder = ProgramBuilder(groups, rank=rank, world_size=layout.cards, name=name)
    sharded = layout.sharding is Sharding.FSDP
    if layout.shards_stages:
        for index, pieces in enumerate(chunk.layers):
            if direction is Direction.GRADIENTS:
                builder.add(_reduce(pieces, index, layout), Phase.OTHER, "gradients")
            elif layout.chunks > 1:
                builder.add(_gather(pieces, index, layout), Phase.OTHER, "parameters")
                builder.add(_waits(pieces, index, _GATHER, layout), Phase.OTHER, "parameters")
        return builder.finish(StepKind.SCRIPT)
    if direction is Direction.GRADIENTS and (sharded or layout.overlap_grad_reduce):
        for index in reversed(range(len(chunk.layers))):
            builder.add(_reduce(chunk.layers[index], index, layout), Phase.BACKWARD, "gradients")
    gathers = sharded or (layout.sharding is Sharding.ZERO1 and layout.overlap_param_gather)
    if direction is Direction.PARAMETERS and gathers:
        for index, pieces in enumerate(chunk.layers):
            builder.add(_gather(pieces, index, layout), Phase.FORWARD, "parameters")
    return builder.finish(StepKind.SCRIPT)


def optimizer_program(chunks: list[ModelChunk], layout: Layout, groups: list[ProcessGroup]) -> Program:
    """What a stage does after its last backward: exchange not yet done, gradient norm, Adam, copies."""
    stage = chunks[0].stage
    builder = ProgramBuilder(
        groups, rank=stage * layout.stage_ranks, world_size=layout.cards, name=f"optimizer {stage}"
    )
    separate = layout.sharding is not Sharding.FSDP
    layers = [pieces for chunk in chunks for pieces in chunk.layers]
    merged: Pieces = tuple(piece for pieces in layers for piece in pieces)
    if separate and not layout.overlap_grad_reduce:
        builder.add(_reduce(merged, 0, layout), Phase.BACKWARD, "gradients")
        builder.add(_waits(merged, 0, _REDUCE, layout), Phase.BACKWARD, "gradients")
    for elements, is_expert in _parameters(merged, layout):
        _, ways = _ways(layout, is_expert)
        share = elements if layout.sharding is Sharding.DDP else -(-elements // ways)
        local = not layout.fused and layout.eager is EagerCode.MEGATRON
        step = adam(share, elements, layout.precision.activation) if local else _adam(share, layout)
        builder.add(step, Phase.OPTIMIZER, "optimizer")
    if separate and layout.sharding is Sharding.ZERO1 and not layout.overlap_param_gather:
        # Megatron-core has an optimizer for experts and one for the rest; each gathers all parameters when it is done
        for _ in _parameters(merged, layout):
            builder.add(_gather(merged, 0, layout), Phase.OPTIMIZER, "parameters")
            builder.add(_waits(merged, 0, _GATHER, layout), Phase.OPTIMIZER, "parameters")
    return builder.finish(StepKind.SCRIPT)


def _adam(elements: int, layout: Layout) -> list[OpSpec]:
    """Norm and clipping of the gradients, AdamW in FP32, and the cast to what products run in."""
    gradient = tensor("float32" if layout.reduce_in_fp32 else layout.precision.activation, elements)
    state, step, one = tensor("float32", elements), tensor("float32", 1), tensor("float32", 1)
    ops = [
        op("aten._foreach_norm.Scalar", (gradient,), (one,)),
        op("aten._foreach_mul_.Tensor", (gradient, one), ()),
        op("aten._fused_adamw_", (state, gradient, state, state, step), ()),
    ]
    if layout.cards > 1:
        ops.insert(1, collective("allreduce_", 0, one, one))
    if layout.precision.activation != "float32" and layout.sharding is not Sharding.FSDP:
        ops.append(op("aten._to_copy", (state,), (tensor(layout.precision.activation, elements),)))
    return ops
