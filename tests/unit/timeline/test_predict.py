"""The prediction of small programs whose answers can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import windtunnel
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
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate, Source
from windtunnel.program.op import OpSpec
from windtunnel.program.program import NoticeKind, Phase, ProcessGroup, Program, StepKind
from windtunnel.results.run_result import RunResult
from windtunnel.specs.catalogue import chip_names
from windtunnel.timeline.predict import predict

F, B, OPT, R = Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.RECOMPUTE
BIG = mm(8192, 8192, 8192)
BIG_FLOPS = 2 * 8192**3
BIG_S = BIG_FLOPS / 1e15 + 3 * 8192 * 8192 * 2 / 1e12
SMALL = add(8)


CHIP = round_chip()


def ask(program: Program, **options: Any) -> RunResult:
    return predict(program, CHIP, model_for=TwoLineModel, memory=no_memory(), **options)


def test_device_bound_step_is_the_sum_of_its_kernels() -> None:
    result = ask(make_program([(BIG, 0, F)] * 3 + [(BIG, 0, OPT)], tokens=100))
    assert result.step_time_s.value == pytest.approx(4 * BIG_S)
    assert result.parts.compute_s == pytest.approx(3 * BIG_S)
    assert result.parts.optimizer_s == pytest.approx(BIG_S)
    assert result.parts.host_gap_s == pytest.approx(0, abs=1e-12)
    assert result.tokens_per_s_per_gpu is not None
    assert result.tokens_per_s_per_gpu.value == pytest.approx(100 / (4 * BIG_S))


def test_parts_sum_to_the_step() -> None:
    result = ask(make_program([(BIG, 0, F), (mark("item"), 0, F), (SMALL, 0, B), (SMALL, 0, OPT)] * 5))
    assert result.parts.total_s == result.step_time_s.value


def test_launch_bound_step_takes_its_host_time_and_says_so() -> None:
    result = ask(make_program([(SMALL, 0, F)] * 100))
    assert result.step_time_s.value == pytest.approx(100 * 5e-6, rel=0.01)
    assert any("launch-bound" in warning for warning in result.warnings)
    halved = {s.what: s.step_time_s for s in result.sensitivities}
    assert halved["kernel launch"] == pytest.approx(result.step_time_s.value / 2, rel=0.02)
    assert halved["memory bandwidth"] == pytest.approx(result.step_time_s.value, rel=0.02)


def test_small_kernels_that_fill_the_card_follow_its_floor() -> None:
    known = windtunnel.chip("mtt-s5000")
    slow = replace(known, kernel_floor_s=replace(known.kernel_floor_s, value=5e-5))
    result = predict(make_program([(add(256), 0, F)] * 100), slow, memory=no_memory())
    assert result.step_time_s.value == pytest.approx(100 * 5e-5, rel=0.02)
    halved = {s.what: s.step_time_s for s in result.sensitivities}
    assert halved["kernel floor"] == pytest.approx(result.step_time_s.value / 2, rel=0.02)
    assert halved["kernel launch"] == pytest.approx(result.step_time_s.value, rel=0.02)


def test_interval_holds_the_value_and_narrows_with_many_kernels() -> None:
    one = ask(make_program([(BIG, 0, F)], kind=StepKind.FORWARD)).step_time_s
    kinds = [(mm(8192, 8192, 8192 + 64 * i), 0, F) for i in range(12)]
    many = ask(make_program(kinds, kind=StepKind.FORWARD)).step_time_s
    assert one.low < one.value < one.high
    assert (many.high - many.value) / many.value < (one.high - one.value) / one.value
    assert one.source is Source.CALIBRATED


def test_recomputation_counts_for_hardware_not_for_the_model() -> None:
    result = ask(make_program([(BIG, 0, F), (BIG, 0, R), (BIG, 0, B), (BIG, 0, B), (BIG, 0, OPT)]))
    assert result.hardware_flops_per_step == 5 * BIG_FLOPS
    assert result.model_flops_per_step == 3 * BIG_FLOPS
    assert result.hfu is not None
    assert result.mfu is not None
    assert result.hfu.value == pytest.approx(result.mfu.value * 5 / 3)
    assert result.mfu_peak == "bf16 1.00 PFLOP/s"


def test_causal_attention_has_half_the_model_flops_and_backward_twice_forward() -> None:
    q = tensor(2, 16, 1024, 64)
    flags = (("is_causal", True),)
    name = "aten._scaled_dot_product_fused_attention_overrideable"
    forward = OpSpec(f"{name}.default", (q, q, q), (q,), flags)
    backward = OpSpec(f"{name}_backward.default", (q, q, q, q, q), (q, q, q), flags)
    one = ask(make_program([(forward, 0, F)]))
    both = ask(make_program([(forward, 0, F), (backward, 0, B)]))
    assert one.model_flops_per_step == 2 * one.model_flops_per_step_causal
    assert both.model_flops_per_step == pytest.approx(3 * one.model_flops_per_step)
    assert both.hardware_flops_per_step == pytest.approx(3.5 * one.model_flops_per_step)


def test_rows_sum_to_the_device_time_and_name_the_place() -> None:
    result = ask(make_program([(BIG, 0, F)] * 3 + [(SMALL, 0, B)]))
    assert math.fsum(row.seconds for row in result.ops) == pytest.approx(result.parts.compute_s)
    first = result.ops[0]
    assert (first.count, first.module, first.line, first.phase) == (
        3,
        "model.layers.*.mlp",
        "test.py:3",
        "forward",
    )
    assert first.shapes == "8192×8192 · 8192×8192"
    assert "1.10 TFLOP" in first.formula
    assert 0 < first.peak_fraction <= 1


def test_spans_lie_in_the_step_and_point_at_rows() -> None:
    result = ask(make_program([(BIG, 0, F), (BIG, 1, F), (mark("synchronize"), 0, F)], streams=2))
    assert result.tracks == ("host", "stream 0", "stream 1")
    drawn = [span for span in result.spans if span.track]
    assert {span.track for span in drawn} == {1, 2}
    assert all(
        span.start_s >= 0 and span.start_s + span.duration_s <= result.step_time_s.value * 1.0001
        for span in drawn
    )
    assert all(0 <= span.op < len(result.ops) for span in drawn)
    assert all(span.critical for span in drawn)


def test_many_spans_are_merged_without_losing_busy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windtunnel.timeline.spans.SPANS_MAX", 10)
    result = ask(make_program([(BIG, 0, F)] * 2 + [(mm(1024, 1024, 1024), 0, F)] * 50))
    drawn = [span for span in result.spans if span.track]
    assert len(drawn) <= 12
    assert math.fsum(span.duration_s for span in drawn) == pytest.approx(result.step_time_s.value)


def test_collective_needs_a_network() -> None:
    x = tensor(1 << 20)
    reduce = OpSpec("c10d.allreduce_.default", (x,), (x,), (("group", 0), ("work", 1), ("async_op", True)))
    wait = mark("wait_collective", work=1)
    issued = [(BIG, 0, F), (reduce, 0, B), (BIG, 0, B), (wait, 0, B), (SMALL, 0, OPT)]
    alone = ask(make_program(issued, groups=[ProcessGroup((0,))]))
    program = make_program(issued, groups=[ProcessGroup((0, 1))])
    with pytest.raises(WindtunnelError) as refused:
        ask(program)
    assert refused.value.code == "E510"
    hidden = ask(program, collective_time=lambda *_: Estimate.exact(BIG_S / 2))
    shown = ask(program, collective_time=lambda *_: Estimate.exact(BIG_S * 3))
    assert hidden.step_time_s.value == pytest.approx(alone.step_time_s.value)
    assert shown.parts.exposed_comm_s == pytest.approx(2 * BIG_S, rel=1e-3)
    assert shown.recorded_collectives == 1


def test_unknown_operation_is_listed() -> None:
    odd = OpSpec("mylib.mystery.default", (tensor(1 << 24),), (tensor(1 << 24),))
    result = ask(make_program([(odd, 0, F)] * 2))
    notice = next(n for n in result.notices if n.kind is NoticeKind.UNPRICED)
    assert notice.count == 2
    assert "mylib.mystery" in notice.what
    assert any("without a cost model" in warning for warning in result.warnings)
    with pytest.raises(WindtunnelError) as refused:
        ask(make_program([(odd, 0, F)] * 2), strict=True)
    assert refused.value.code == "E512"
    assert "mylib.mystery" in str(refused.value)


def test_tf32_is_the_scripts_choice_then_the_chips() -> None:
    chip = windtunnel.chip("h100-sxm")  # FP32 products stay FP32 unless the script allows TF32
    single = OpSpec(
        "aten.mm.default", (tensor(4096, 4096, dtype="float32"),) * 2, (tensor(4096, 4096, dtype="float32"),)
    )
    program = make_program([(single, 0, F)])
    allowed = replace(program, origin=replace(program.origin, allow_tf32=True))
    slow, fast = (predict(p, chip, memory=no_memory()) for p in (program, allowed))
    assert slow.mfu_peak.startswith("fp32")
    assert fast.mfu_peak.startswith("tf32")
    assert fast.step_time_s.value < slow.step_time_s.value


def test_what_it_rests_on_is_said() -> None:
    program = make_program([(OpSpec("aten.mm.default", (tensor(64, 64, dtype="float64"),) * 2, ()), 0, F)])
    result = predict(program, windtunnel.chip("mtt-s5000"), memory=no_memory())
    assert any("fp64 peak" in assumption for assumption in result.assumptions)
    assert result.ceilings
    assert {"windtunnel", "chip data"} <= {what for what, _ in result.versions}


def test_unrecorded_step_is_refused() -> None:
    with pytest.raises(WindtunnelError) as refused:
        ask(make_program([(BIG, 0, F)]), step=3)
    assert refused.value.code == "E511"


def test_inference_is_a_latency_from_an_idle_card() -> None:
    result = ask(make_program([(BIG, 0, F)], kind=StepKind.PREFILL))
    assert result.step_time_s.value == pytest.approx(BIG_S + 5e-6)
    assert result.steps == (("prefill", result.step_time_s.value),)


def test_a_delay_of_the_host_is_io() -> None:
    result = ask(make_program([(mark("host_delay", seconds=0.5), 0, F), (BIG, 0, F), (mark("item"), 0, F)]))
    assert result.parts.io_s == pytest.approx(0.5, rel=1e-3)


OPS = st.sampled_from([BIG, SMALL, mm(512, 512, 512), add(1 << 22), mark("item")])


@settings(max_examples=25, deadline=None)
@given(ops=st.lists(st.tuples(OPS, st.sampled_from([F, B, OPT])), min_size=1, max_size=30))
def test_the_same_program_gives_the_same_answer_and_parts_sum(ops: list[tuple[OpSpec, Phase]]) -> None:
    program = make_program([(spec, 0, phase) for spec, phase in ops])
    first, second = ask(program), ask(program)
    assert first == second
    assert first.parts.total_s == first.step_time_s.value
    assert first.step_time_s.value >= first.parts.compute_s + first.parts.optimizer_s


@settings(max_examples=25, deadline=None)
@given(ops=st.lists(OPS, min_size=1, max_size=20), factor=st.floats(1.0, 4.0))
def test_more_bytes_never_take_less_time(ops: list[OpSpec], factor: float) -> None:
    program = make_program([(spec, 0, F) for spec in ops])
    more = replace(
        program, works=[replace(work, bytes_read=work.bytes_read * factor) for work in program.works]
    )
    assert ask(more).step_time_s.value >= ask(program).step_time_s.value * (1 - 1e-12)


@pytest.mark.parametrize("name", chip_names())
def test_no_chip_beats_its_own_peaks(name: str) -> None:
    chip = windtunnel.chip(name)
    matmuls = predict(make_program([(BIG, 0, F)] * 4), chip, memory=no_memory())
    streams = predict(make_program([(add(1 << 30), 0, F)] * 4), chip, memory=no_memory())
    assert matmuls.mfu is not None
    assert streams.mbu is not None
    assert 0.2 < matmuls.mfu.value < 1
    assert 0.4 < streams.mbu.value < 1
    for sensitivity in matmuls.sensitivities:
        assert sensitivity.step_time_s <= matmuls.step_time_s.value * (1 + 1e-9)
    faster = {s.what: s.step_time_s for s in streams.sensitivities}
    assert faster["memory bandwidth"] < streams.step_time_s.value
