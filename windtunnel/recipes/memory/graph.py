"""Automatic differentiation of sizes: what operations save for backward, and what their gradients take.

Follows PyTorch's engine: operations are differentiated in the reverse order of their calls; what an operation saved
is released when it is done; gradients of a value that several operations used are added up as they arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from windtunnel.program.program import Phase
from windtunnel.recipes.memory.tape import Buffer, Tape, free


class WeightGradients(Enum):
    """What becomes of the gradients of parameters."""

    KEPT = 0  # until they are reduced
    SUMMED = 1  # added to a buffer and dropped
    NONE = 2  # summed by the product itself; a stand-in of each size is kept for good (Transformer Engine)
    UNASKED = 3  # only the input's gradient is asked for


class Value:
    """A tensor: elements of ``width`` bytes in a buffer, and the node whose result it is (None: a constant)."""

    __slots__ = ("buffer", "elements", "node", "width")

    def __init__(self, buffer: Buffer, elements: int, width: int, node: Node | None = None) -> None:
        self.buffer = buffer
        self.elements = elements
        self.width = width
        self.node = node

    @property
    def nbytes(self) -> int:
        """Size."""
        return self.elements * self.width


class Node:
    """One operation to be differentiated.

    ``gradients``: bytes of the gradient of each input; None hands the result's gradient on as it is. ``before`` and
    ``after``: bytes of buffers that backward needs while it runs, allocated before and after the gradients.
    ``weights``: bytes of the gradients of parameters; ``expert``: they are experts'. ``joins``: gradients that
    arrive are those of parts, and are laid side by side instead of added up.
    """

    __slots__ = (
        "after", "before", "by", "expert", "gradient", "gradients", "inputs", "joins", "parts", "saved", "scope",
        "weighs_last", "weights",
    )  # fmt: skip

    def __init__(self, by: str, scope: str) -> None:
        self.by = by
        self.scope = scope
        self.inputs: tuple[Node | None, ...] = ()
        self.saved: list[Buffer] = []
        self.gradients: tuple[int | None, ...] = ()
        self.before: Sequence[int] = ()
        self.after: Sequence[int] = ()
        self.weights: Sequence[int] = ()
        self.expert = False
        self.joins = False
        self.weighs_last = False
        self.parts: list[Buffer] = []
        self.gradient: Buffer | None = None

    def arrive(self, gradient: Buffer, tape: Tape) -> None:
        """Another gradient of the result."""
        if self.joins:
            self.parts.append(gradient)
        elif self.gradient is None:
            self.gradient = gradient
        else:
            self.gradient = tape.allocate(tape.sizes[gradient.number], "aten.add.Tensor")


@dataclass(slots=True)
class Graph:
    """Operations of one part of a model, as they are called.

    Attributes:
        saves: whether operations save anything for backward: not while a part runs that is computed again.
        kept: those results, in order. products: matrix products so far, of which TorchTitan keeps every second.
        keeps: whether some results are kept all the same (selective recomputation).
        replays: whether this is the second time, and ``kept`` is what the first time left.
        weights: what becomes of gradients of parameters; placeholders: by size, what stands in for them.
        weight_gradients, expert_gradients: what backward has computed of them so far.
    """

    tape: Tape
    saves: bool = True
    keeps: bool = False
    replays: bool = False
    kept: list[Buffer] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    weight_gradients: list[Buffer] = field(default_factory=list)
    expert_gradients: list[Buffer] = field(default_factory=list)
    products: int = 0
    weights: WeightGradients = WeightGradients.KEPT
    placeholders: dict[int, Buffer] = field(default_factory=dict)

    def leaf(self, value: Value) -> Value:
        """The same memory, as an input whose gradient is asked for."""
        node = Node("", self.tape.scope)
        self.nodes.append(node)
        return Value(value.buffer, value.elements, value.width, node)

    def call(
        self,
        by: str,
        elements: int,
        width: int,
        inputs: Sequence[Value],
        *,
        saves: Sequence[Value] = (),
        saves_result: bool = False,
        gradients: Sequence[int | None] | None = None,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        weights: Sequence[int] = (),
        scratch: Sequence[int] = (),
        keeps: bool = False,
        expert: bool = False,
        weighs_last: bool = False,
    ) -> Value:
        """One operation and its result.

        Args:
            elements, width: of the result.
            inputs: what gradients flow to. gradients: bytes of each; the inputs' own sizes if not given.
            saves, saves_result: what backward needs. scratch: bytes needed while it runs forward.
            keeps: selective recomputation keeps the result instead of computing it again.
            weighs_last: gradients of weights come after those of inputs.
        """
        tape = self.tape
        if self.replays and keeps:
            result = self.kept.pop(0)
        else:
            held = [tape.allocate(nbytes, by) for nbytes in scratch]
            result = tape.allocate(elements * width, by)
            del held
            if keeps and self.keeps:
                self.kept.append(result)
        if not self.saves:
            return Value(result, elements, width)
        nodes = tuple(value.node for value in inputs)
        if not weights and not any(nodes):
            return Value(result, elements, width)
        node = Node(by, tape.scope)
        node.inputs = nodes
        node.saved = [value.buffer for value in saves] + ([result] if saves_result else [])
        node.gradients = tuple(v.nbytes for v in inputs) if gradients is None else tuple(gradients)
        node.before, node.after, node.weights, node.expert = before, after, weights, expert
        node.weighs_last = weighs_last
        self.nodes.append(node)
        return Value(result, elements, width, node)

    def is_kept_product(self) -> bool:
        """Whether selective recomputation keeps the next product: the first, the third, and so on."""
        self.products += 1
        return self.products % 2 == 1

    def view(self, x: Value, by: str, *, joins: bool = False) -> Value:
        """The same memory in another shape, whose gradient needs memory of its own.

        ``joins``: parts of it are used apart, and their gradients laid side by side.
        """
        if not self.saves or x.node is None:
            return Value(x.buffer, x.elements, x.width)
        node = Node(by, self.tape.scope)
        node.inputs, node.gradients, node.joins = (x.node,), (x.nbytes,), joins
        self.nodes.append(node)
        return Value(x.buffer, x.elements, x.width, node)

    def constant(self, nbytes: int, by: str) -> Value:
        """Memory that takes no part in differentiation."""
        return Value(self.tape.allocate(nbytes, by), nbytes, 1)

    def backward(self, gradient: list[Buffer]) -> list[Buffer]:
        """Differentiate all of it. ``gradient`` (emptied) is that of the last result; answers the first leaf's."""
        self.nodes[-1].gradient = gradient.pop()
        first = self.nodes[0]
        while self.nodes:
            node = self.nodes.pop()
            if node.by and (node.gradient is not None or node.parts):
                self._differentiate(node)
            free(node.saved)
        found, first.gradient = first.gradient, None
        return [found] if found is not None and not first.by else []

    def _differentiate(self, node: Node) -> None:
        tape = self.tape
        tape.scope = node.scope
        gradient, node.gradient = node.gradient, None
        parts, node.parts = node.parts, []
        held = [tape.allocate(nbytes, node.by) for nbytes in node.before]
        if not node.weighs_last:
            self._weigh(node)
        arriving: list[tuple[Node, Buffer]] = []
        for source, size in zip(node.inputs, node.gradients, strict=True):
            if source is None:
                continue
            if size is not None:
                arriving.append((source, tape.allocate(size, node.by)))
            elif gradient is not None:
                arriving.append((source, gradient))
        if node.weighs_last:
            self._weigh(node)
        held += [tape.allocate(nbytes, node.by) for nbytes in node.after]
        del held, gradient, parts
        free(node.saved)
        while arriving:
            source, own = arriving.pop(0)
            source.arrive(own, tape)
            del own

    def _weigh(self, node: Node) -> None:
        """Gradients of parameters."""
        if self.weights is WeightGradients.UNASKED:
            return
        for nbytes in node.weights:
            if self.weights is WeightGradients.NONE:
                if nbytes not in self.placeholders:
                    self.placeholders[nbytes] = self.tape.allocate(nbytes, "get_dummy_wgrad")
                continue
            made = self.tape.allocate(nbytes, node.by)
            if self.weights is WeightGradients.KEPT:
                (self.expert_gradients if node.expert else self.weight_gradients).append(made)
            del made


Code = Callable[[Graph, Value], Value]
"""Part of a model: from its input to its result."""


def differentiate_again(graph: Graph, code: Code, saved: Value, gradient: list[Buffer]) -> list[Buffer]:
    """Compute a part again from its input and differentiate it (activation checkpointing)."""
    tape, phase = graph.tape, graph.tape.phase
    tape.phase = Phase.RECOMPUTE
    again = Graph(
        tape, replays=bool(graph.kept), kept=graph.kept, weight_gradients=graph.weight_gradients,
        expert_gradients=graph.expert_gradients, weights=graph.weights, placeholders=graph.placeholders,
    )  # fmt: skip
    result = code(again, again.leaf(saved))
    del result
    tape.phase = phase
    return again.backward(gradient)
