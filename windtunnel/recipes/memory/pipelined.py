"""Two steps of one stage of a pipeline, or of a whole model under Megatron-LM's data parallelism, buffer by buffer.

Under Megatron-LM parameters and gradients each lie in one buffer (``_ParamAndGradBuffer``); the parameters' first
storages are freed when they move there. FP32 copies, and the optimizer's state from the first step on, are one tensor
for each parameter. A micro-batch's activations live from its forward to its backward; the schedule says how many live
at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from windtunnel.program.program import Category, Phase
from windtunnel.recipes.layout import Layout, Precision, Recompute, Sharding
from windtunnel.recipes.memory import parts
from windtunnel.recipes.memory.graph import (
    Code,
    Graph,
    Value,
    WeightGradients,
    differentiate_again,
)
from windtunnel.recipes.memory.tape import Buffer, Tape

STEPS = 2


@dataclass(frozen=True, slots=True)
class Block:
    """A layer, or an end of the model.

    ``expert_weights`` are shared out over other ranks than ``weights``. ``stands_in``: its products sum gradients by
    themselves and leave one stand-in for each size, as Transformer Engine's do; the ends' leave none. ``pieces``:
    elements that its first matrix is drawn as.
    """

    name: str
    code: Code
    weights: Sequence[int]
    expert_weights: Sequence[int] = ()
    checkpoints: bool = False
    stands_in: bool = False
    is_loss: bool = False
    pieces: Sequence[int] = ()


@dataclass(slots=True)
class Pass:
    """What one micro-batch has left of a chunk: for each block its graph, and its input where it runs again."""

    graphs: list[tuple[Block, Graph, Value | None]] = field(default_factory=list)
    result: list[Value] = field(default_factory=list)


@dataclass(slots=True)
class PipelinedStep:
    """Writes the buffers of one stage.

    Attributes:
        chunks: blocks of each model chunk of the stage, in order.
        state_bytes: of the optimizer, a parameter. is_first, is_last: stage of the model.
        stream_elements: of what passes between stages. hidden: numbers of the residual stream, a token.
    """

    tape: Tape
    layout: Layout
    chunks: Sequence[Sequence[Block]]
    stage: int
    state_bytes: int
    stream_elements: int
    hidden: int
    placeholders: dict[int, Buffer] = field(default_factory=dict)

    def run(self) -> list[Buffer]:
        """Parameters and buffers, then steps; answers what stays."""
        held = self._start()
        self.tape.begin_step()
        state: list[Buffer] = []
        for step in range(STEPS):
            self._begin(step == 0)
            waiting: dict[tuple[int, int], Pass] = {}
            for forward, chunk, micro_batch in self._order():
                if forward:
                    waiting[chunk, micro_batch] = self._forward(chunk, micro_batch)
                else:
                    self._backward(waiting.pop((chunk, micro_batch)), chunk, micro_batch)
            self._end()
            self.tape.phase, self.tape.scope = Phase.OPTIMIZER, "optimizer"
            self._update(state)
            self.tape.end_step(self.layout.tokens)
        return held + state

    def _start(self) -> list[Buffer]:
        """Parameters of their own first, then in one buffer; gradients; FP32 copies of what this rank owns."""
        tape, layout = self.tape, self.layout
        full = layout.precision is Precision.FP32
        eight_bit = layout.precision.is_fp8
        width = parts.width_of(layout)
        sizes = [nbytes for nbytes, _ in self._parameters()]
        first = [tape.allocate(nbytes, "aten.empty", category=Category.PARAMETER) for nbytes in sizes]
        held: list[Buffer] = []
        if eight_bit:  # 8-bit weights and their transposes
            held += [
                tape.allocate(nbytes // width, "cast", category=Category.PARAMETER)
                for nbytes in (*sizes, *sizes)
            ]
        gradient = parts.WIDE if layout.reduce_in_fp32 or full else 2
        moves = layout.sharding is Sharding.ZERO1
        for own, _ in self._buffers():
            if moves and not (eight_bit and layout.fp8_parameters):
                held.append(self._buffer(sum(own), Category.PARAMETER))
            held.append(self._buffer(sum(own) // width * gradient, Category.GRADIENT))
        held += [] if moves else first
        del first
        if not full:
            held += [
                tape.allocate(nbytes, "aten.clone", category=Category.OPTIMIZER_STATE)
                for nbytes in self._owned()
            ]
        return held

    def _owned(self) -> Iterator[int]:
        """Bytes in FP32 of each piece of a parameter that this rank updates.

        Megatron-LM's distributed optimizer shares out a buffer as a whole, in which the last parameters lie first:
        rank 0 owns whole parameters up to its share, and part of one.
        """
        width = parts.width_of(self.layout)
        if self.layout.sharding is not Sharding.ZERO1:
            for nbytes, ways in self._parameters():
                yield share(nbytes // width, ways) * parts.WIDE
            return
        for sizes, ways in self._buffers():
            left = share(sum(sizes) // width, ways)
            for nbytes in reversed(sizes):
                elements = min(left, nbytes // width)
                left -= elements
                if elements:
                    yield elements * parts.WIDE

    def _buffers(self) -> list[tuple[list[int], int]]:
        """Bytes of the parameters of each of Megatron-LM's buffers, and over how many ranks it is shared out.

        Experts have one of their own where other ranks hold them than the rest.
        """
        layout, blocks = self.layout, [block for blocks in self.chunks for block in blocks]
        if layout.expert == 1 and layout.expert_data == layout.data_and_context:
            return [
                (
                    [n for block in blocks for n in (*block.weights, *block.expert_weights)],
                    layout.data_and_context,
                )
            ]
        own = [nbytes for block in blocks for nbytes in block.weights]
        experts = [nbytes for block in blocks for nbytes in block.expert_weights]
        return [(own, layout.data_and_context), *([(experts, layout.expert_data)] if experts else [])]

    def _buffer(self, nbytes: int, category: Category) -> Buffer:
        return self.tape.allocate(nbytes, "aten.zeros", category=category)

    def _parameters(self) -> Iterator[tuple[int, int]]:
        """Bytes of each parameter, and over how many ranks its optimizer state is shared out."""
        layout = self.layout
        ways, expert_ways = layout.data_and_context, layout.expert_data
        if layout.sharding is Sharding.DDP:
            ways = expert_ways = 1
        elif layout.sharding is Sharding.FSDP:
            ways = layout.shards
            expert_ways = max(1, layout.expert_data * layout.shards // layout.data_and_context)
        for blocks in self.chunks:
            for block in blocks:
                for nbytes in block.weights:
                    yield nbytes, ways
                for nbytes in block.expert_weights:
                    yield nbytes, expert_ways

    def _update(self, state: list[Buffer]) -> None:
        """Adam. Without Apex or Transformer Engine gradients are scaled into a copy, one by one, and all roots of the
        second moments are there at once; 16-bit gradients are widened."""
        owned = list(self._owned())
        by_pytorch = parts.by_megatron(self.layout)
        for nbytes in owned if by_pytorch else ():
            scaled = self.tape.allocate(nbytes, "aten.mul")
            del scaled
        if not state:
            state += [
                self.tape.allocate(nbytes, "aten.zeros_like", category=Category.OPTIMIZER_STATE)
                for nbytes in owned
                for _ in range(self.state_bytes // parts.WIDE)
            ]
        narrow = not self.layout.reduce_in_fp32 and parts.width_of(self.layout) != parts.WIDE
        if by_pytorch or narrow:
            beside = [self.tape.allocate(nbytes, "aten._foreach_sqrt") for nbytes in owned]
            del beside

    def _order(self) -> Iterator[tuple[bool, int, int]]:
        """(forward, chunk, micro-batch) of a step: enough of it to come to the fullest moment and back.

        1F1B, interleaved where there are several chunks (arXiv 2104.04473); GPipe: all forward first.
        """
        layout, stage, chunks = self.layout, self.stage, len(self.chunks)
        count = layout.micro_batches * chunks
        warm_up = min(count, layout.pipeline - stage)
        if chunks > 1:
            warm_up = min(count, 2 * (layout.pipeline - stage - 1) + (chunks - 1) * layout.pipeline + 1)
        if layout.schedule == "gpipe":
            warm_up = count
        shown = min(count, warm_up + chunks)
        forward = [self._unit(number) for number in range(shown)]
        yield from ((True, chunk, micro_batch) for chunk, micro_batch in forward[:warm_up])
        waiting, later = set(forward), iter(forward[warm_up:])
        for unit in (self._unit(number, backward=True) for number in range(count)):
            if not waiting:
                return  # however many micro-batches follow, they are like these
            if unit not in waiting:
                continue
            waiting.remove(unit)
            yield False, *unit
            following = next(later, None)
            if following is not None:
                yield True, *following

    def _unit(self, number: int, *, backward: bool = False) -> tuple[int, int]:
        """The chunk and micro-batch of the ``number``-th pass of a stage."""
        stages, chunks = self.layout.pipeline, len(self.chunks)
        group, place = divmod(number, stages * chunks)
        chunk, within = divmod(place, stages)
        return (chunks - 1 - chunk if backward else chunk), group * stages + within

    def _begin(self, is_first_step: bool) -> None:
        """Before the first micro-batch of a step."""

    def _end(self) -> None:
        """After the last."""

    def _forward(self, chunk: int, micro_batch: int) -> Pass:
        tape, layout = self.tape, self.layout
        tape.phase, tape.scope = Phase.FORWARD, "received"
        done = Pass()
        width = parts.width_of(layout)
        if self.stage == 0 and chunk == 0:
            x = Value(tape.allocate(layout.tokens * 8, "ids", category=Category.INPUT), layout.tokens, 8)
        else:
            elements = self.stream_elements
            received = tape.allocate(elements * width, "c10d.recv")
            x = Value(received, elements, width)
            del received
        for block in self.chunks[chunk]:
            tape.scope = block.name
            mode = WeightGradients.NONE if block.stands_in else WeightGradients.SUMMED
            graph = Graph(
                tape,
                saves=not block.checkpoints,
                keeps=selective(layout),
                weights=mode,
                placeholders=self.placeholders,
            )
            saved = x if block.checkpoints else None
            x = block.code(graph, x if block.checkpoints else graph.leaf(x))
            done.graphs.append((block, graph, saved))
            del saved, graph
        if self.stage == layout.pipeline - 1 and chunk == len(self.chunks) - 1:
            done.result.append(x)
        return done  # what goes to the next stage is given back as soon as it is sent

    def _backward(self, done: Pass, chunk: int, micro_batch: int) -> None:
        tape = self.tape
        tape.phase, tape.scope = Phase.BACKWARD, "received"
        last = bool(done.result)
        done.result.clear()
        nbytes = parts.WIDE if last else self.stream_elements * parts.width_of(self.layout)
        gradient = [tape.allocate(nbytes, "c10d.recv")]
        while done.graphs:
            block, graph, saved = done.graphs.pop()
            tape.scope = block.name
            if saved is None:
                gradient = graph.backward(gradient)
            else:
                gradient = differentiate_again(graph, block.code, saved, gradient)
            del saved, graph


def share(elements: int, ways: int) -> int:
    """Elements of one of ``ways`` ranks."""
    return -(-elements // ways)


def selective(layout: Layout) -> bool:
    """Whether single operations are computed again, and others kept."""
    return layout.recompute in (Recompute.SELECTIVE_OPS, Recompute.SELECTIVE_PRODUCTS)


def checkpoints(layout: Layout) -> bool:
    """Whether whole layers are computed again."""
    return layout.recompute not in (Recompute.NONE, Recompute.SELECTIVE)
