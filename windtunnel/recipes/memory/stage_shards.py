"""Two steps of one stage of a pipeline whose layers are under FSDP2, buffer by buffer.

PyTorch's stages (``torch/distributed/pipelining/stage.py``) keep what they gathered for the next micro-batch, sum
gradients whole in the type that reduces, and reduce and reshard after the last micro-batch. They receive into buffers
of their own, one for each micro-batch, hold what a micro-batch sends on until its backward is done, and before the
first step they run a micro-batch through the stage to learn the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from windtunnel.program.program import Category, Phase
from windtunnel.recipes.layout import EagerCode, Layout
from windtunnel.recipes.memory import parts
from windtunnel.recipes.memory.drawn import draw, draws
from windtunnel.recipes.memory.graph import Graph, Value, WeightGradients, differentiate_again
from windtunnel.recipes.memory.pipelined import Block, Pass, PipelinedStep, selective, share
from windtunnel.recipes.memory.sharded import ENDS, copied_out, reduced_shard
from windtunnel.recipes.memory.tape import COMPUTE, GATHER, REDUCE, Buffer, Tape, free, own_stream


@dataclass(slots=True)
class StageShards:
    """What a stage holds beside its shards, by the names of its blocks."""

    tape: Tape
    layout: Layout
    gathered: dict[str, list[Buffer]] = field(default_factory=dict)
    summed: dict[str, list[Buffer]] = field(default_factory=dict)
    buffers: dict[str, list[Buffer]] = field(default_factory=dict)
    reducing: list[Buffer] = field(default_factory=list)

    def unshard(self, block: Block, stream: int) -> None:
        """Parameters of a block laid end to end, before its first pass: as in ``sharded``."""
        if block.name in self.gathered or block.name in self.buffers:
            return
        width = parts.width_of(self.layout)
        buffers = self.buffers[block.name] = []
        for weights, ways in self.sets(block):
            if ways == 1:
                continue
            own = sum(share(nbytes // width, ways) for nbytes in weights) * width
            sent = self.tape.allocate(own, "aten.empty", stream, Category.COMMUNICATION)
            buffers.append(self.tape.allocate(own * ways, "aten.empty", stream, Category.COMMUNICATION))
            laid = self.tape.allocate(own, "fsdp.all_gather_copy_in", stream, Category.COMMUNICATION)
            del sent, laid

    def copy_out(self, block: Block) -> None:
        """They get memory of their own; the buffer is given back when the next block's is copied out."""
        if block.name in self.gathered:
            return
        gathered = self.gathered[block.name] = []
        for weights, ways in self.sets(block):
            gathered += copied_out(self.tape, self.layout, weights, ways)
        for name in [name for name in self.buffers if name in self.gathered and name != block.name]:
            del self.buffers[name]

    def end_forward(self) -> None:
        """The last buffer is given back."""
        for name in [name for name in self.buffers if name in self.gathered]:
            del self.buffers[name]

    def keep(self, block: Block, graph: Graph) -> None:
        """Gradients of a block: of the first micro-batch they are kept, one by one, and later ones added."""
        gradients = graph.expert_gradients
        for own in (graph.expert_gradients, graph.weight_gradients):
            if self.layout.eager is EagerCode.TORCHTITAN and len(own) > 2:  # w1, w2, w3: gate, down and up
                own[:2] = reversed(own[:2])
        gradients += graph.weight_gradients
        graph.weight_gradients.clear()
        first = block.name not in self.summed
        held = self.summed.setdefault(block.name, [])
        width = parts.width_of(self.layout)
        while gradients:
            whole = gradients.pop()
            if first and self._reduced != width:
                nbytes = self.tape.sizes[whole.number] // width * self._reduced
                held.append(self.tape.allocate(nbytes, "aten._to_copy", category=Category.GRADIENT))
            elif first:
                held.append(whole)
            del whole

    def reduce(self, blocks: Sequence[Block], stream: int) -> list[Buffer]:
        """Block by block: parameters given back, gradients copied into a buffer, their shards."""
        shards: list[Buffer] = []
        width = parts.width_of(self.layout)
        for block in blocks:
            self.tape.scope = block.name
            self.release([block])
            whole = self.summed.pop(block.name, [])
            if not whole:
                continue
            for weights, ways in self.sets(block):
                own = sum(share(nbytes // width, ways) for nbytes in weights)
                self.reducing = []
                self.reducing.append(
                    self.tape.allocate(
                        own * ways * self._reduced, "aten.empty", category=Category.COMMUNICATION
                    )
                )
                last = whole[len(weights) - 1 : len(weights)] if block.name in ENDS else []  # the loop's
                del whole[: len(weights)]
                shards.append(reduced_shard(self.tape, self.layout, own, ways, stream))
                last.clear()
        self.reducing.clear()
        return shards

    def release(self, blocks: Sequence[Block]) -> None:
        """Parameters given back."""
        for block in blocks:
            free(self.gathered.pop(block.name, []))

    def sets(self, block: Block) -> list[tuple[Sequence[int], int]]:
        """Parameters that are gathered by one collective, and over how many ranks."""
        layout = self.layout
        expert_ways = max(1, layout.expert_data * layout.shards // layout.data_and_context)
        both = ((block.weights, layout.shards), (block.expert_weights, expert_ways))
        return [(weights, ways) for weights, ways in both if weights]

    @property
    def _reduced(self) -> int:
        return parts.WIDE if self.layout.reduce_in_fp32 else parts.width_of(self.layout)


@dataclass(slots=True)
class ShardedStage(PipelinedStep):
    """The same stage under FSDP2. The last block of the model is its loss.

    Attributes:
        received, handed_back: by chunk and micro-batch, what arrives from the stages before and behind.
        output, sent: of the last forward and the last backward, which their loop still holds; or all that was sent.
        reduced: gradients of the shards. left: passes of each chunk until it reduces.
    """

    shards: StageShards = field(init=False)
    received: dict[tuple[int, int], Value] = field(default_factory=dict)
    handed_back: dict[tuple[int, int], Buffer] = field(default_factory=dict)
    output: list[Value] = field(default_factory=list)
    sent: list[Buffer] = field(default_factory=list)
    reduced: list[Buffer] = field(default_factory=list)
    left: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shards = StageShards(self.tape, self.layout)

    def _start(self) -> list[Buffer]:
        width = parts.width_of(self.layout)
        held: list[Buffer] = []
        for blocks in self.chunks:
            owned = [
                [share(n // width, ways) for weights, ways in self.shards.sets(block) for n in weights]
                for block in blocks
            ]
            held += [
                self.tape.allocate(elements * parts.WIDE, "aten.empty", category=Category.PARAMETER)
                for shards in owned
                for elements in shards
            ]
            for block, shards in zip(blocks, owned, strict=True):
                self.tape.scope = block.name
                if draws(self.layout) and block.name != "embedding":  # drawn in place
                    draw(self.tape, shards, block.pieces, self.hidden, self.layout.tensor)
        return held

    @property
    def looped(self) -> bool:
        """Whether the stage has several chunks: PyTorch's schedule then gathers chunks as a whole, ahead of their first
        pass, and holds whatever it sent until the end of the step."""
        return len(self.chunks) > 1

    def _first(self, chunk: int) -> bool:
        return self.stage == 0 and chunk == 0

    def _last(self, chunk: int) -> bool:
        return self.stage == self.layout.pipeline - 1 and chunk == len(self.chunks) - 1

    def _begin(self, is_first_step: bool) -> None:
        if is_first_step:
            self._infer()
        free(self.reduced)
        self.left = dict.fromkeys(range(len(self.chunks)), 0)
        for forward, chunk, _ in self._order():
            self.left[chunk] += forward
        if self.looped:
            self.tape.phase = Phase.OTHER
            for block in (block for blocks in self.chunks for block in blocks):
                self.tape.scope = block.name
                self.shards.unshard(block, COMPUTE)

    def _infer(self) -> None:
        """One micro-batch forward, and the gradient of its input backward, where there is one."""
        count = range(self.layout.micro_batches)
        passes: list[tuple[Pass, Value]] = []
        for chunk in range(len(self.chunks)):
            x = self._given() if self._first(chunk) else self._stream()
            done = self._run(chunk, x, WeightGradients.UNASKED)
            if not self._first(chunk):
                self.received.update({(chunk, number): self._stream() for number in count})
            if self._last(chunk):
                self._lose(chunk, done, WeightGradients.UNASKED)
            passes.append((done, x))
            del x
        for chunk in reversed(range(len(self.chunks))):
            (done, x), last = passes.pop(), self._last(chunk)
            gradient = [self._ones(last)]
            if self._first(chunk):
                gradient.clear()
                done.graphs.clear()
            gradient = self._differentiate(done, gradient, WeightGradients.UNASKED)
            done.result.clear()
            del x
            gradient.clear()
            if not last:
                self.handed_back.update({(chunk, number): self._stream().buffer for number in count})
        for blocks in self.chunks:
            self.shards.release(blocks)

    def _given(self) -> Value:
        tokens = self.layout.tokens
        return Value(self.tape.allocate(tokens * 8, "ids", category=Category.INPUT), tokens, 8)

    def _stream(self) -> Value:
        elements, width = self.stream_elements, parts.width_of(self.layout)
        return Value(self.tape.allocate(elements * width, "aten.empty_strided"), elements, width)

    def _ones(self, last: bool) -> Buffer:
        if last:
            return self.tape.allocate(parts.WIDE, "aten.ones_like")
        return self._stream().buffer

    def _run(self, chunk: int, x: Value, mode: WeightGradients) -> Pass:
        """All blocks but the loss."""
        tape, done = self.tape, Pass()
        tape.phase = Phase.FORWARD
        for block in self.chunks[chunk]:
            if block.is_loss:
                break
            tape.scope = block.name
            self.shards.unshard(block, own_stream(GATHER, chunk))
            self.shards.copy_out(block)
            x = self._through(done, block, x, mode)
        self.shards.end_forward()
        done.result.append(x)
        return done

    def _through(self, done: Pass, block: Block, x: Value, mode: WeightGradients) -> Value:
        graph = Graph(
            self.tape, saves=not block.checkpoints, keeps=selective(self.layout), weights=mode,
            placeholders=self.placeholders,
        )  # fmt: skip
        saved = x if block.checkpoints else None
        result = block.code(graph, x if block.checkpoints else graph.leaf(x))
        done.graphs.append((block, graph, saved))
        return result

    def _lose(self, chunk: int, done: Pass, mode: WeightGradients) -> None:
        block = self.chunks[chunk][-1]
        self.tape.scope = block.name
        result = self._through(done, block, done.result[0], mode)
        del result

    def _differentiate(self, done: Pass, gradient: list[Buffer], mode: WeightGradients) -> list[Buffer]:
        self.tape.phase = Phase.BACKWARD
        while done.graphs:
            block, graph, saved = done.graphs.pop()
            self.tape.scope = block.name
            graph.weights = mode
            if saved is None:
                gradient = graph.backward(gradient)
            else:
                gradient = differentiate_again(graph, block.code, saved, gradient)
            if mode is WeightGradients.UNASKED:
                self.shards.release([block])
            else:
                self.shards.keep(block, graph)
            del saved, graph
        return gradient

    def _forward(self, chunk: int, micro_batch: int) -> Pass:
        for block in self.chunks[chunk] if self.looped else ():
            self.shards.copy_out(block)
            self.shards.end_forward()
        x = self._given() if self._first(chunk) else self.received[chunk, micro_batch]
        done = self._run(chunk, x, WeightGradients.KEPT)
        if not self.looped:
            self.output = list(done.result)
        elif not self._last(chunk):
            self.sent.append(done.result[0].buffer)
        if self._last(chunk):
            self._lose(chunk, done, WeightGradients.KEPT)
        return done

    def _backward(self, done: Pass, chunk: int, micro_batch: int) -> None:
        gradient = [self._ones(True) if self._last(chunk) else self.handed_back[chunk, micro_batch]]
        # gradients of the type that reduces are added up as they are made
        own = parts.width_of(self.layout)
        adds = self.layout.reduce_in_fp32 is False or own == parts.WIDE
        first = micro_batch == 0
        mode = WeightGradients.SUMMED if adds and not first else WeightGradients.KEPT
        gradient = self._differentiate(done, gradient, mode)
        if not self.looped:
            self.sent = gradient
        elif not self._first(chunk):
            self.sent += gradient
        self.left[chunk] -= 1
        if not self.left[chunk]:
            self.tape.phase = Phase.OTHER
            self.reduced += self.shards.reduce(self.chunks[chunk], own_stream(REDUCE, chunk))

    def _end(self) -> None:
        self.output = []
        self.sent.clear()
