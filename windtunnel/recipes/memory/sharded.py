"""Two steps under PyTorch's fully sharded data parallel (FSDP2), buffer by buffer.

Follows torch/distributed/fsdp/_fully_shard (``_fsdp_param_group.py``, ``_fsdp_collectives.py``), wrapped as TorchTitan
wraps a decoder: embedding, every layer, and the last norm with the output product, which stays gathered from forward
to backward. Gathering has a stream of its own, and so have the shards of reduced gradients.

* before a unit: its shard is cast and laid end to end, gathered, and copied out into its parameters; the buffer of
  the unit before is held until then;
* backward of a unit: the buffer of the next one is already on its way;
* after it: its parameters are given back, its gradients are copied into a buffer of the reduced type, which is held
  until the next unit's reduction;
* the optimizer's state is born in the first step, in whatever that step left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from windtunnel.program.program import Category, Phase
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.memory import parts
from windtunnel.recipes.memory.drawn import draw, draws
from windtunnel.recipes.memory.graph import Code, Graph, Value, differentiate_again
from windtunnel.recipes.memory.pipelined import selective
from windtunnel.recipes.memory.tape import GATHER, REDUCE, Buffer, Tape, free

ENDS = ("embedding", "output")
"""Units that are no layers."""

STEPS = 2
"""The second finds the state of the optimizer."""


@dataclass(slots=True)
class Unit:
    """What is gathered and reduced together.

    Attributes:
        code: from its input to its result. weights, expert_weights: bytes of each parameter, gathered.
        ways, expert_ways: ranks that share them.
        checkpoints: computed again in backward. stays: gathered from forward to backward.
        pieces: elements that its first matrix is drawn as.
        root: the unit that holds its parameters, if it has none of its own.
        aside: of a vision tower: it runs beside the embedded text, and joins it where the tower ends.
    """

    name: str
    code: Code
    weights: Sequence[int]
    ways: int
    expert_weights: Sequence[int] = ()
    expert_ways: int = 1
    checkpoints: bool = False
    stays: bool = False
    aside: bool = False
    pieces: Sequence[int] = ()
    gathered: list[Buffer] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    shards: list[Buffer] = field(default_factory=list)
    root: Unit | None = None
    pending: list[Buffer] = field(default_factory=list)
    graph: Graph | None = None
    saved: Value | None = None

    @property
    def sets(self) -> list[tuple[Sequence[int], int]]:
        """Parameters that are gathered by one collective, and over how many ranks."""
        both = ((self.weights, self.ways), (self.expert_weights, self.expert_ways))
        return [(weights, ways) for weights, ways in both if weights]


@dataclass(slots=True)
class ShardedStep:
    """Writes the buffers of steps on a tape.

    ``state_bytes``: of the optimizer, a parameter. ``prefetches``: forward gathers one unit ahead.
    ``merged_bytes``: of a vision tower's result. ``hidden``: numbers of the residual stream, a token.
    """

    tape: Tape
    layout: Layout
    units: Sequence[Unit]
    state_bytes: int
    trains: bool = True
    prefetches: bool = False
    merged_bytes: int = 0
    hidden: int = 0
    last_buffers: list[Buffer] = field(default_factory=list)
    reducing: list[Buffer] = field(default_factory=list)

    def run(
        self, batch: Callable[[Tape], list[Value]], loss: Callable[[Graph, Value], Value]
    ) -> list[Buffer]:
        """Parameters, then steps; answers what stays.

        ``batch`` makes what lives through a forward pass: ids, pictures if there is a tower, and the rest. ``loss``
        ends it.
        """
        tape = self.tape
        held = self._parameters()
        if draws(self.layout):
            self._draw()
        tape.begin_step()
        state: list[Buffer] = []
        for _ in range(STEPS):
            for _ in range(self.layout.micro_batches if self.layout.micro_batches < 2 else 2):
                self._pass(batch, loss)
            tape.phase = Phase.OPTIMIZER
            tape.scope = "optimizer"
            if not state and self.trains:
                state += self._states()
            tape.end_step(self.layout.tokens)
            for unit in self.units:
                free(unit.shards)
        return held + state

    def _parameters(self) -> list[Buffer]:
        width = parts.width_of(self.layout)
        held = []
        for unit in self.units:
            self.tape.scope = unit.name
            for weights, ways in unit.sets:
                for nbytes in weights:
                    shard = _share(nbytes // width, ways) * parts.WIDE
                    held.append(self.tape.allocate(shard, "aten.empty", category=Category.PARAMETER))
        return held

    def _draw(self) -> None:
        width = parts.width_of(self.layout)
        for unit in self.units[1:]:  # the embedding is drawn in place
            self.tape.scope = unit.name
            shards = [_share(nbytes // width, ways) for weights, ways in unit.sets for nbytes in weights]
            draw(self.tape, shards, unit.pieces, self.hidden, self.layout.tensor)

    def _states(self) -> list[Buffer]:
        width, each = parts.width_of(self.layout), self.state_bytes // parts.WIDE
        state = []
        for unit in self.units:
            for weights, ways in unit.sets:
                for nbytes in weights:
                    shard = _share(nbytes // width, ways) * parts.WIDE
                    for _ in range(each):
                        made = self.tape.allocate(shard, "aten.zeros_like", category=Category.OPTIMIZER_STATE)
                        state.append(made)
        return state

    def _pass(self, batch: Callable[[Tape], list[Value]], loss: Callable[[Graph, Value], Value]) -> None:
        tape = self.tape
        tape.phase = Phase.FORWARD
        given = batch(tape)
        x = given.pop(0)
        text: Value | None = None
        for unit, after in zip(self.units, [*self.units[1:], None], strict=True):
            tape.scope = unit.name
            if unit.aside and text is None:
                text, x = x, given.pop(0)
            elif text is not None and not unit.aside:
                x = Value(tape.allocate(text.nbytes, "aten.masked_scatter"), text.elements, text.width)
                text = None
            if not unit.buffers:
                self._gather(unit)
            self._copy_out(unit)
            if self.prefetches and after is not None:
                self._gather(after)
            x = self._forward(unit, x)
            if not unit.stays:
                free(unit.gathered)
        self.last_buffers = []
        graph = Graph(tape)
        tape.scope = "loss"
        result = loss(graph, graph.leaf(x))
        del x, given, result
        tape.phase = Phase.BACKWARD
        gradient = graph.backward([tape.allocate(parts.WIDE, "aten.ones_like")])
        self._backward(gradient)

    def _forward(self, unit: Unit, x: Value) -> Value:
        if not unit.checkpoints:
            unit.graph = Graph(self.tape)
            return unit.code(unit.graph, unit.graph.leaf(x))
        unit.graph = Graph(self.tape, saves=False, keeps=selective(self.layout))
        unit.saved = x
        return unit.code(unit.graph, x)

    def _backward(self, gradient: list[Buffer]) -> None:
        tape = self.tape
        waiting = [unit for unit in self.units if not unit.stays]
        text: list[Buffer] = []
        for unit in reversed(self.units):
            tape.scope = unit.name
            if unit.aside and not text:
                text, gradient = gradient, [tape.allocate(self.merged_bytes, "aten.index")]
            elif text and not unit.aside:
                gradient, text = text, []
            if not unit.stays:
                if not unit.buffers:
                    self._gather(unit)
                self._copy_out(unit)
                self.last_buffers = []
                waiting.pop()
            if waiting:
                self._gather(waiting[-1])
            graph, unit.graph = unit.graph, None
            assert graph is not None
            if unit.checkpoints:
                saved, unit.saved = unit.saved, None
                assert saved is not None
                gradient = differentiate_again(graph, unit.code, saved, gradient)
                del saved
            else:
                gradient = graph.backward(gradient)
            free(unit.gathered)
            if unit.root is not None:
                unit.root.pending += graph.weight_gradients
                graph.weight_gradients.clear()
            elif self.trains:
                graph.weight_gradients += unit.pending
                unit.pending = []
                self._reduce(unit, graph)
            del graph
        self.reducing = []
        self.last_buffers = []

    def _gather(self, unit: Unit) -> None:
        width = parts.width_of(self.layout)
        for weights, ways in unit.sets:
            share = sum(_share(nbytes // width, ways) for nbytes in weights) * width
            if ways == 1:
                continue
            sent = self.tape.allocate(share, "aten.empty", GATHER, Category.COMMUNICATION)
            unit.buffers.append(
                self.tape.allocate(share * ways, "aten.empty", GATHER, Category.COMMUNICATION)
            )
            laid = self.tape.allocate(share, "fsdp.all_gather_copy_in", GATHER, Category.COMMUNICATION)
            del sent, laid

    def _copy_out(self, unit: Unit) -> None:
        for weights, ways in unit.sets:
            unit.gathered += copied_out(self.tape, self.layout, weights, ways)
        # the buffer of the unit before is given back only now
        self.last_buffers, unit.buffers = unit.buffers, []

    def _reduce(self, unit: Unit, graph: Graph) -> None:
        width = parts.width_of(self.layout)
        reduced = parts.WIDE if self.layout.reduce_in_fp32 else width
        self.reducing = []
        pairs = (
            (graph.expert_gradients, unit.expert_weights, unit.expert_ways),
            (graph.weight_gradients, unit.weights, unit.ways),
        )
        if not unit.expert_weights:
            graph.weight_gradients += graph.expert_gradients
            graph.expert_gradients.clear()
        for gradients, weights, ways in pairs:
            if not weights:
                continue
            share = sum(_share(nbytes // width, ways) for nbytes in weights)
            self.reducing.append(
                self.tape.allocate(share * ways * reduced, "aten.empty", category=Category.COMMUNICATION)
            )
            # the loop over parameters still has the last one's; layers end with a norm
            last = gradients[:1] if unit.name in ENDS else []
            gradients.clear()
            shard = reduced_shard(self.tape, self.layout, share, ways)
            last.clear()
            if not unit.shards or len(unit.shards) < len(unit.sets):
                unit.shards.append(shard)  # of further micro-batches they are added to the first ones
            del shard


def copied_out(tape: Tape, layout: Layout, weights: Sequence[int], ways: int) -> list[Buffer]:
    """Memory of gathered parameters. What one rank has for itself is cast and copied, one parameter after another."""
    gathered, cast = [], None
    for nbytes in weights:
        if ways == 1 and layout.wraps_single:
            cast = tape.allocate(nbytes, "aten._to_copy", category=Category.COMMUNICATION)
        gathered.append(tape.allocate(nbytes, "fsdp.split", category=Category.COMMUNICATION))
    del cast
    return gathered


def reduced_shard(tape: Tape, layout: Layout, elements: int, ways: int, stream: int = REDUCE) -> Buffer:
    """Memory of reduced gradients. What one rank has for itself is divided on its way there."""
    shard = tape.allocate(elements * parts.WIDE, "aten.empty", stream, Category.GRADIENT)
    if ways == 1 and layout.wraps_single:
        divided = tape.allocate(elements * parts.WIDE, "aten.div", stream, Category.COMMUNICATION)
        del divided
    return shard


def _share(elements: int, ways: int) -> int:
    return -(-elements // ways)
