"""The replay of one card: laws of streams, events and waiting; both ways of replaying agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.timeline.card import Card, Trace
from windtunnel.timeline.prices import Act, OpPrice
from windtunnel.timeline.sites import SiteTable

LAUNCH_S = 1.0


def kernel(seconds: float, host_s: float = LAUNCH_S, *, small: bool = False) -> OpPrice:
    return OpPrice(Act.SMALL_KERNEL if small else Act.KERNEL, host_s, seconds)


def replay(issued: list[tuple[OpPrice, int]], *, as_array: bool = False) -> tuple[Card, Trace]:
    table, trace = SiteTable(), Trace()
    numbers = [table.add(price, stream) for price, stream in issued]
    card = Card(table, graph_launch_s=0.5, trace=trace)
    if as_array:
        card.advance_array(np.array(numbers, np.int64))
    else:
        card.advance(numbers)
    return card, trace


def test_a_kernel_waits_for_its_launch_and_its_stream() -> None:
    card, trace = replay([(kernel(5), 0), (kernel(5), 0)])
    _, starts, ends = trace.arrays()
    assert starts.tolist() == [1, 6]
    assert ends.tolist() == [6, 11]
    assert card.host_s == 2
    assert card.finish_s == 11


def test_small_kernels_of_two_streams_overlap_and_full_ones_do_not() -> None:
    small, _ = replay([(kernel(5, small=True), 0), (kernel(5, small=True), 1)])
    full, _ = replay([(kernel(5), 0), (kernel(5), 1)])
    assert small.finish_s == 7
    assert full.finish_s == 11


def test_a_stream_waits_for_an_event_of_another() -> None:
    record, wait = OpPrice(Act.EVENT_RECORD, 0, argument=4), OpPrice(Act.EVENT_WAIT, 0, argument=4)
    card, trace = replay([(kernel(5), 0), (record, 0), (wait, 1), (kernel(1), 1)])
    assert trace.arrays()[1].tolist() == [1, 6]
    assert card.event_time_s(4) == 6
    assert card.event_time_s(5) is None


@pytest.mark.parametrize(
    ("price", "host_s"),
    [
        (OpPrice(Act.STREAM_SYNCHRONIZE, 0), 6),
        (OpPrice(Act.SYNCHRONIZE, 0), 9),
        (OpPrice(Act.EVENT_SYNCHRONIZE, 0, argument=1), 6),
        (OpPrice(Act.ITEM, 0, 0.25), 6.25),
        (OpPrice(Act.HOST_DELAY, 0, argument=3), 5),
    ],
)
def test_what_the_host_waits_for(price: OpPrice, host_s: float) -> None:
    record = OpPrice(Act.EVENT_RECORD, 0, argument=1)
    card, _ = replay([(kernel(5), 0), (record, 0), (kernel(7, small=True), 1), (price, 0)])
    assert card.host_s == host_s


def test_a_captured_graph_costs_the_host_one_launch() -> None:
    launch, end = OpPrice(Act.GRAPH_LAUNCH, 0), OpPrice(Act.GRAPH_END, 0)
    card, _ = replay([(launch, 0), *[(kernel(0.1), 0)] * 20, (end, 0), (kernel(0.1), 0)])
    assert card.host_s == 0.5 + 1
    assert card.finish_s == pytest.approx(0.5 + 2 + 0.1)


def test_collectives_run_beside_the_stream_until_it_waits() -> None:
    reduce = OpPrice(Act.COLLECTIVE, 0, 10, argument=1, group=0)
    wait = OpPrice(Act.WAIT_COLLECTIVE, 0, argument=1)
    _, trace = replay([(kernel(2), 0), (reduce, 0), (kernel(2), 0), (wait, 0), (kernel(2), 0)])
    _, starts, _ = trace.arrays()
    assert starts.tolist() == [1, 3, 3, 13]
    blocking = OpPrice(Act.COLLECTIVE, 0, 10, argument=1, group=0, blocks=True)
    assert replay([(kernel(2), 0), (blocking, 0), (kernel(2), 0)])[0].finish_s == 15


SECONDS = st.floats(0, 10, allow_nan=False)
KERNELS = st.builds(lambda d, h, small: kernel(d, h, small=small), SECONDS, SECONDS, st.booleans())
MARKS = st.builds(
    lambda act, seconds, number: OpPrice(act, 0, seconds, argument=number, group=0),
    st.sampled_from([act for act in Act if act > Act.SMALL_KERNEL]),
    SECONDS,
    st.integers(0, 2),
)
ONE_STREAM = st.lists(st.tuples(st.one_of(KERNELS, KERNELS, KERNELS, MARKS), st.just(0)), max_size=40)
STREAMS = st.lists(st.tuples(st.one_of(KERNELS, KERNELS, MARKS), st.integers(0, 2)), max_size=40)


@settings(deadline=None)
@given(issued=STREAMS)
def test_both_ways_of_replaying_agree(issued: list[tuple[OpPrice, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("windtunnel.timeline.card.ARRAY_RUN", 2)
        card, trace = replay(issued, as_array=True)
    expected, expected_trace = replay(issued)
    assert card.finish_s == pytest.approx(expected.finish_s)
    assert card.host_s == pytest.approx(expected.host_s)
    for ours, theirs in zip(trace.arrays(), expected_trace.arrays()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@given(issued=STREAMS)
def test_streams_are_first_in_first_out(issued: list[tuple[OpPrice, int]]) -> None:
    _, trace = replay(issued)
    positions, starts, ends = trace.arrays()
    for stream in range(3):
        own = [
            i
            for i, p in enumerate(positions)
            if issued[p][1] == stream and issued[p][0].act <= Act.SMALL_KERNEL
        ]
        assert all(ends[a] <= starts[b] for a, b in itertools.pairwise(own))
    assert (ends >= starts).all()


@given(issued=ONE_STREAM, extra=KERNELS, place=st.integers(0, 40))
def test_another_operation_never_shortens_the_replay(
    issued: list[tuple[OpPrice, int]], extra: OpPrice, place: int
) -> None:
    longer = [*issued[:place], (extra, 0), *issued[place:]]
    assert replay(longer)[0].finish_s >= replay(issued)[0].finish_s - 1e-9


@given(issued=STREAMS)
def test_full_kernels_share_the_card_with_none_that_began_before(issued: list[tuple[OpPrice, int]]) -> None:
    """A kernel that fills the card never begins while the latest such kernel of another stream runs."""
    _, trace = replay(issued)
    positions, starts, ends = trace.arrays()
    last: dict[int, tuple[float, float]] = {}
    for position, start, end in zip(positions, starts, ends):
        price, stream = issued[position]
        if price.act is Act.KERNEL:
            assert not any(s != stream and a <= start < b and b > a for s, (a, b) in last.items())
            last[stream] = (start, end)


@given(issued=STREAMS, cut=st.integers(0, 40))
def test_the_state_is_kept_between_calls(issued: list[tuple[OpPrice, int]], cut: int) -> None:
    table = SiteTable()
    numbers = [table.add(price, stream) for price, stream in issued]
    card = Card(table, graph_launch_s=0.5)
    card.advance(numbers[:cut])
    card.advance(numbers[cut:])
    whole, _ = replay(issued)
    assert (card.host_s, card.finish_s, card.issued) == (whole.host_s, whole.finish_s, whole.issued)
