"""The pieces of a prediction alone: coverage, critical path, steady state, FLOP conventions, odd programs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.timeline.timeline_programs import (
    TwoLineModel,
    add,
    make_program,
    mark,
    mm,
    no_memory,
    round_chip,
    tensor,
)
from windtunnel.program.count import work_of
from windtunnel.program.count.attention import computed_fraction
from windtunnel.program.op import OpSpec
from windtunnel.program.program import Phase, Program, StepKind
from windtunnel.program.work import Family, Work
from windtunnel.timeline.flops import computed_flops, model_flops
from windtunnel.timeline.parts import covered_s
from windtunnel.timeline.predict import predict
from windtunnel.timeline.prices import Act, OpPrice
from windtunnel.timeline.rows import module_pattern
from windtunnel.timeline.sites import SiteTable
from windtunnel.timeline.spans import critical_path, joint_critical_path
from windtunnel.timeline.step import StepTimeline, replay_step, step_seconds

F = Phase.FORWARD
INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=20)


@given(intervals=INTERVALS)
def test_coverage_is_the_length_of_the_union(intervals: list[tuple[int, int]]) -> None:
    start = np.array([a for a, _ in intervals], float)
    end = np.array([a + n for a, n in intervals], float)
    expected = len({second for a, n in intervals for second in range(a, a + n) if second < 25})
    assert covered_s(start, end, 25.0) == expected


@pytest.mark.parametrize(
    ("scope", "pattern"),
    [
        ("", ""),
        ("layers.17.mlp", "layers.*.mlp"),
        ("a.0", "a.*"),
        ("conv2d.b1", "conv2d.b1"),
        ("0.1.2", "*.*.*"),
    ],
)
def test_numbers_of_layers_are_one_place(scope: str, pattern: str) -> None:
    assert module_pattern(scope) == pattern


def _table(seconds: list[float], host_s: float, extra: OpPrice | None = None) -> tuple[SiteTable, np.ndarray]:
    table = SiteTable()
    numbers = [table.add(OpPrice(Act.KERNEL, host_s, s), 0) for s in seconds]
    if extra is not None:
        numbers.append(table.add(extra, 0))
    return table, np.array(numbers, np.int64)


def test_every_kernel_of_a_busy_stream_is_critical_and_one_of_a_waiting_stream() -> None:
    busy, numbers = _table([5.0] * 4, 0.1)
    assert critical_path(replay_step(busy, numbers, StepKind.FORWARD, 0.0)).all()
    waiting, numbers = _table([0.1] * 4, 5.0)
    critical = critical_path(replay_step(waiting, numbers, StepKind.FORWARD, 0.0))
    assert critical.tolist() == [False, False, False, True]


def test_the_critical_path_goes_through_what_the_host_waited_for() -> None:
    table = SiteTable()
    long = table.add(OpPrice(Act.KERNEL, 0.1, 5.0), 0)
    sync = table.add(OpPrice(Act.SYNCHRONIZE, 0.0), 0)
    short = table.add(OpPrice(Act.KERNEL, 1.0, 0.5), 0)
    timeline = replay_step(table, np.array([long, sync, short]), StepKind.FORWARD, 0.0)
    assert critical_path(timeline).tolist() == [True, True]
    assert timeline.waits == ((1, 0.1, 5.1),)


def test_a_rank_that_waited_for_another_hung_on_it_before_it_hung_on_the_host() -> None:
    """A reduction that starts when the late rank comes; the early one's host had waited long before."""

    def rank(
        begins: list[float], ends: list[float], waits: tuple[tuple[int, float, float], ...]
    ) -> StepTimeline:
        numbers = np.arange(len(begins))
        return StepTimeline(6.0, numbers, numbers, np.array(begins), np.array(ends), waits, ())

    late = rank([0.0, 5.0], [5.0, 6.0], ())
    early = rank([0.0, 1.5, 5.0], [1.0, 2.0, 6.0], ((1, 0.0, 1.0),))
    on_late, on_early = joint_critical_path([late, early])
    assert on_late[0]
    assert not on_early[:2].any()


def test_a_training_step_hides_the_host_behind_the_step_before() -> None:
    table, numbers = _table([5.0, 5.0], 1.0)
    assert step_seconds(table, numbers, StepKind.TRAIN, 0.0) == pytest.approx(10.0)
    assert step_seconds(table, numbers, StepKind.FORWARD, 0.0) == pytest.approx(11.0)
    table, numbers = _table([5.0, 5.0], 1.0, OpPrice(Act.SYNCHRONIZE, 0.0))
    assert step_seconds(table, numbers, StepKind.TRAIN, 0.0) == pytest.approx(11.0)


@given(seconds=st.lists(st.floats(0, 9), min_size=1, max_size=20), host_s=st.floats(0, 9))
def test_replaying_with_or_without_a_trace_gives_the_same_length(seconds: list[float], host_s: float) -> None:
    table, numbers = _table(seconds, host_s)
    for kind in (StepKind.TRAIN, StepKind.DECODE):
        timeline = replay_step(table, numbers, kind, 0.0)
        assert timeline.seconds == step_seconds(table, numbers, kind, 0.0)
        assert (timeline.end_s - timeline.start_s).sum() == pytest.approx(sum(seconds))
        assert (timeline.end_s <= timeline.seconds + 1e-9).all()


def _attention(q_len: int, kv_len: int, causal: bool, window: float = 0.0) -> Work:
    dims = {"q_len": q_len, "kv_len": kv_len, "causal": float(causal), "window": window}
    return Work(family=Family.ATTENTION, dims=tuple(dims.items()))


@pytest.mark.parametrize(
    ("q_len", "kv_len", "causal", "window", "fraction"),
    [
        (1024, 1024, False, 0, 1.0),
        (1024, 1024, True, 0, 0.5),
        (1, 4096, True, 0, 1 - 0.5 / 4096),
        (512, 1024, True, 0, 0.75),
        (4096, 4096, True, 128, 128 / 4096),
        (0, 0, True, 0, 1.0),
    ],
)
def test_computed_fraction(q_len: int, kv_len: int, causal: bool, window: float, fraction: float) -> None:
    assert computed_fraction(_attention(q_len, kv_len, causal, window)) == pytest.approx(fraction)


@given(q_len=st.integers(1, 5000), more=st.integers(0, 5000), window=st.integers(0, 5000))
def test_computed_fraction_is_a_fraction(q_len: int, more: int, window: int) -> None:
    assert 0 < computed_fraction(_attention(q_len, q_len + more, True, window)) <= 1


def test_model_flops_of_unequal_head_dimensions() -> None:
    q, v = tensor(1, 8, 512, 192), tensor(1, 8, 512, 128)
    forward = work_of(OpSpec("aten._scaled_dot_product_flash_attention.default", (q, q, v), (v,)))
    backward = work_of(
        OpSpec("aten._scaled_dot_product_flash_attention_backward.default", (v, q, q, v), (q, q, v))
    )
    assert model_flops(forward) == forward.flops
    assert model_flops(backward) == pytest.approx(2 * forward.flops)
    assert backward.flops > 2 * forward.flops


def test_a_grouped_convolution_counts_what_it_computes() -> None:
    x, weight, out = tensor(2, 64, 16, 16), tensor(64, 1, 3, 3), tensor(2, 64, 14, 14)
    common = (("transposed", False), ("groups", 64))
    forward = work_of(OpSpec("aten.convolution.default", (x, weight), (out,), common))
    mask = (("output_mask", (True, True, False)),)
    backward = work_of(
        OpSpec("aten.convolution_backward.default", (out, x, weight), (x, weight), (*common, *mask))
    )
    assert computed_flops(backward) == 2 * computed_flops(forward) == 2 * forward.flops
    assert backward.flops == forward.flops * (1 + 64)  # PyTorch's count


def test_a_program_that_did_nothing_takes_no_time() -> None:
    result = predict(make_program([]), round_chip(), model_for=TwoLineModel, memory=no_memory())
    assert result.step_time_s.value == 0
    assert result.mfu is None
    assert result.ops == result.spans == ()


NUMBERS = st.one_of(st.integers(-3, 9), st.floats(), st.none(), st.text(max_size=2))
ODD = st.one_of(
    st.builds(
        lambda name, key, value: OpSpec(f"windtunnel.{name}", attributes=((key, value),)),
        st.sampled_from(
            ["event_wait", "event_record", "event_synchronize", "host_delay", "wait_collective", "item"]
        ),
        st.sampled_from(["event", "seconds", "work"]),
        NUMBERS,
    ),
    st.builds(
        lambda group, work: OpSpec(
            "c10d.allreduce_.default", (tensor(8),), (), (("group", group), ("work", work))
        ),
        NUMBERS,
        NUMBERS,
    ),
    st.sampled_from(
        [mm(0, 8, 8), add(0), mark("graph_launch"), mark("graph_end"), OpSpec("x"), OpSpec("a.b.c.d")]
    ),
)


@settings(max_examples=100, deadline=None)
@given(specs=st.lists(ODD, max_size=12), kind=st.sampled_from(StepKind))
def test_odd_programs_give_finite_answers(specs: list[OpSpec], kind: StepKind) -> None:
    program: Program = make_program([(spec, 0, F) for spec in specs], kind=kind)
    result = predict(program, round_chip(), model_for=TwoLineModel, memory=no_memory())
    assert math.isfinite(result.step_time_s.high)
    again = replace(program, events=np.concatenate([program.events, program.events]))
    assert math.isfinite(
        predict(again, round_chip(), model_for=TwoLineModel, memory=no_memory()).step_time_s.high
    )
