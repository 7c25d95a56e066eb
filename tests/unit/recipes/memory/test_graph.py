"""Sizes differentiated as autograd differentiates tensors: what is born, what is kept, what is freed."""

from __future__ import annotations

from windtunnel.memory.lifetimes import lifetimes_of
from windtunnel.recipes.memory import parts
from windtunnel.recipes.memory.graph import Graph, Value, WeightGradients, differentiate_again
from windtunnel.recipes.memory.tape import Tape


def value(tape: Tape, elements: int, width: int = 2) -> Value:
    return Value(tape.allocate(elements * width, "given"), elements, width)


def live(tape: Tape) -> int:
    """Bytes alive, not rounded."""
    program = tape.program("test")
    found = lifetimes_of(program)
    alive = found.died >= len(program.events)
    return int(program.storage_bytes[alive].sum())


def test_a_buffer_lives_as_long_as_something_holds_it() -> None:
    tape = Tape()
    first = value(tape, 1000)
    second = parts.cast(Graph(tape), first, 4)
    assert live(tape) == 6000
    del first
    assert live(tape) == 4000
    del second
    assert live(tape) == 0


def test_a_product_keeps_its_input_and_leaves_the_gradient_of_its_weights() -> None:
    tape = Tape()
    graph = Graph(tape)
    x = graph.leaf(value(tape, 8 * 64))
    y = parts.linear(graph, x, 64, 32)
    del x
    assert live(tape) == 2 * (8 * 64 + 8 * 32)  # the input is saved
    del y
    gradient = graph.backward([tape.allocate(2 * 8 * 32, "given")])
    assert live(tape) == 2 * (64 * 32 + 8 * 64)  # of weights and of the input; the saved input is gone
    assert [tape.sizes[buffer.number] for buffer in graph.weight_gradients] == [2 * 64 * 32]
    del gradient, graph
    assert live(tape) == 0


def test_gradients_of_one_value_are_added_as_they_arrive() -> None:
    tape = Tape()
    graph = Graph(tape)
    x = graph.leaf(value(tape, 100))
    y = parts.add(graph, parts.unary(graph, "silu", x), parts.unary(graph, "silu", x))
    del x, y
    before = len(tape.sizes)
    gradient = graph.backward([tape.allocate(200, "given")])
    assert tape.sizes[before:] == [200, 200, 200, 200]  # given, one for each branch, their sum
    del gradient, graph
    assert live(tape) == 0


def test_parts_of_a_joined_value_are_laid_side_by_side_and_not_added() -> None:
    tape = Tape()
    graph = Graph(tape)
    whole = graph.view(graph.leaf(value(tape, 300)), "cat", joins=True)
    one, two = (graph.call("clone", count, 2, [whole], gradients=(None,)) for count in (100, 200))
    out = graph.call("cat", 300, 2, [one, two])
    del whole, one, two, out
    before = len(tape.sizes)
    gradient = graph.backward([tape.allocate(600, "given")])
    assert tape.sizes[before:] == [600, 200, 400, 600]
    del gradient, graph
    assert live(tape) == 0


def test_a_part_that_runs_again_keeps_its_input_only() -> None:
    def code(graph: Graph, x: Value) -> Value:
        return parts.linear(graph, parts.unary(graph, "silu", x), 64, 64)

    kept = {}
    for selective in (False, True):
        tape = Tape()
        graph = Graph(tape, saves=False, keeps=selective)
        x = value(tape, 8 * 64)
        y = code(graph, x)
        del y
        kept[selective] = live(tape)
        again = differentiate_again(graph, code, x, [tape.allocate(2 * 8 * 64, "given")])
        assert len(graph.weight_gradients) == 1
        assert not graph.kept
        del x, again, graph
        assert live(tape) == 0
    assert kept == {False: 2 * 8 * 64, True: 2 * 2 * 8 * 64}


def test_gradients_that_are_summed_at_once_leave_nothing_or_one_stand_in_for_each_size() -> None:
    left = {}
    for mode in WeightGradients:
        tape = Tape()
        graph = Graph(tape, weights=mode)
        x = parts.linear(graph, parts.linear(graph, graph.leaf(value(tape, 8 * 64)), 64, 64), 64, 64)
        del x
        gradient = graph.backward([tape.allocate(2 * 8 * 64, "given")])
        del gradient
        left[mode] = live(tape)
    each = 2 * 64 * 64
    assert left == {
        WeightGradients.KEPT: 2 * each,
        WeightGradients.SUMMED: 0,
        WeightGradients.NONE: each,
        WeightGradients.UNASKED: 0,
    }
