"""Two half-batches in turn: what hides what, and the laws that hold whatever the lengths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving_layout import Imbalance, ServingLayout
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.overlap import Turns
from windtunnel.serving.prices import thinner
from windtunnel.serving.step_time import StepTime
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

SECONDS = st.floats(0.0, 10.0, allow_subnormal=False)


def test_what_a_long_combine_leaves_over_is_lost() -> None:
    """Six seconds of computing and six on the wire do not hide each other when one exchange is longer than its turn."""
    even = Turns(outside=1.5, experts=1.5, dispatch=1.5, combine=1.5)
    uneven = Turns(outside=1.5, experts=1.5, dispatch=0.5, combine=2.5)
    assert even.both(0.0) == pytest.approx(6.0)
    assert uneven.both(0.0) == pytest.approx(2 * 1.5 + 2 * 2.5)


@given(SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
def test_no_shorter_than_either_stream_no_longer_than_both(
    outside: float, experts: float, dispatch: float, combine: float, core: float
) -> None:
    layer = Turns(outside=outside, experts=experts, dispatch=dispatch, combine=combine)
    compute, wire = 2 * (outside + experts) + core, 2 * (dispatch + combine)
    took = layer.both(core)
    assert took >= max(compute, wire) - 1e-9
    assert took <= compute + wire + 1e-9


def test_turns_hold_all_of_the_layers_with_experts() -> None:
    model = architecture_of(shipped_model("deepseek-v3-671b"))
    layout = ServingLayout(data=32, expert=32, precision=Precision.FP8_BLOCK)
    step = StepTime(model, layout, cluster_of("h800", 32), overlap=True)
    batch = Batch(sequences=1, new=4096)
    (parts,), whole = step.turns_alone(batch), step.dense(batch)
    assert parts.dispatch + parts.combine == pytest.approx(whole.network)
    assert parts.dispatch_held + parts.combine_held == pytest.approx(whole.held)
    dense_layers = whole.device - whole.network - parts.computed
    assert 0 < dense_layers < 0.15 * whole.device  # three of 61
    assert parts.before > 0
    assert parts.after > 0
    assert parts.before + parts.after < parts.outside


def test_layers_that_differ_are_taken_apart_and_sum_to_the_whole() -> None:
    model = architecture_of(shipped_model("deepseek-v3-671b"))
    parts = (Imbalance(1.0, 1.0, 1.0), Imbalance(2.0, 1.5, 1.8))
    batch, cluster = Batch(sequences=2, new=4096), cluster_of("h100-sxm", 32)

    def step(imbalance: Imbalance, parts: tuple[Imbalance, ...] = ()) -> StepTime:
        layout = ServingLayout(
            data=32, expert=32, precision=Precision.FP8_BLOCK, drawn=False, imbalance=imbalance, parts=parts
        )
        return StepTime(model, layout, cluster, overlap=True)

    even, uneven = (step(one) for one in parts)
    mixed = step(Imbalance.mean(parts), parts)
    assert len(mixed.turns(batch)) == 2
    for name in ("device", "network"):
        ends = [getattr(one.dense(batch), name) for one in (even, uneven)]
        assert getattr(mixed.dense(batch), name) == pytest.approx(sum(ends) / 2)
    took = [one.mixed_s(0, 0, [(4096, 0)] * 4) for one in (even, mixed, step(Imbalance.mean(parts)), uneven)]
    # layers that wait for exchanges gain nothing from those that do not
    assert took[0] < took[2] <= took[1] < took[3]
    assert took[1] == pytest.approx((took[0] + took[3]) / 2)


def wide(chip_name: str, stack: Stack = Stack.VLLM, overlap: bool = True, sms: int = 0) -> StepTime:
    layout = ServingLayout(data=32, expert=32, precision=Precision.FP8_BLOCK, exchange_sms=sms)
    model = architecture_of(shipped_model("deepseek-v3-671b"))
    return StepTime(model, layout, cluster_of(chip_name, 32), overlap=overlap, stack=stack)


def test_products_leave_the_exchange_its_multiprocessors_for_the_whole_pass() -> None:
    """vLLM and SGLang set DeepGEMM's multiprocessors once for a pass of prompts, not while an exchange runs."""
    step, batch = wide("h100-sxm"), Batch(sequences=2, new=4096)
    (alone,), (beside,) = step.turns_alone(batch), step.turns(batch)
    assert alone.outside_given == alone.experts_given == 0
    for one, other in ((alone.experts, beside.experts), (alone.outside, beside.outside)):
        assert 1.05 * one < other < 132 / 112 * one * 1.01
    (more,) = wide("h100-sxm", sms=24).turns(batch)
    assert more.experts > beside.experts
    assert more.dispatch_units > beside.dispatch_units


def test_decoding_leaves_products_all_multiprocessors() -> None:
    step, batch = wide("h100-sxm"), Batch(sequences=128, context=2048)
    assert step.turns(batch) == step.turns_alone(batch)


def test_a_card_without_kernels_in_its_exchange_gives_none_away() -> None:
    step, batch = wide("mtt-s5000"), Batch(sequences=2, new=4096)
    assert step.turns(batch) == step.turns_alone(batch)


def test_a_thinner_card_computes_less_and_reads_as_fast() -> None:
    whole = chip("h100-sxm")
    less = thinner(whole, 20 / 132)
    assert less.multiprocessors.value == 112
    assert less.peak_flops["fp8"].value == pytest.approx(whole.peak_flops["fp8"].value * 112 / 132)
    assert less.memory_bytes_per_s == whole.memory_bytes_per_s


def test_products_that_gave_units_away_lose_no_more() -> None:
    """Of a turn's kernels only those that stand in an exchange's way lose its multiprocessors again."""
    held = Turns(outside=4.0, experts=4.0, dispatch=1.0, dispatch_held=0.5, dispatch_units=0.5)
    given = Turns(
        outside=4.0, experts=4.0, dispatch=1.0, dispatch_held=0.5, dispatch_units=0.5, outside_given=4.0,
        experts_given=2.0,
    )  # fmt: skip
    assert held.both(0.0) == pytest.approx(4 * 4.0 + 2 * 0.5)
    assert given.both(0.0) == pytest.approx(4 * 4.0 + 0.0 + 0.25)


def test_five_stages_hide_nothing_behind_experts() -> None:
    """A dispatch lies beside what comes before attention and the shared expert, a combine beside attention."""
    layer = Turns(outside=3.0, before=0.5, after=0.5, experts=4.0, dispatch=2.0, combine=1.0)
    assert layer.staged(0.0) == pytest.approx(2 * (2.0 + 4.0 + 2.0))
    assert layer.staged(4.0) == pytest.approx(2 * (2.0 + 4.0 + 4.0))
    long = Turns(outside=3.0, before=0.5, after=0.5, experts=4.0, dispatch=0.5, combine=5.0)
    assert long.staged(0.0) == pytest.approx(2 * (1.0 + 4.0 + 5.0))


def test_sglang_cuts_every_batch_and_vllm_from_its_thresholds() -> None:
    vllm, whole = wide("h100-sxm"), wide("h100-sxm", overlap=False)
    assert vllm.decode_s(16, 16 * 2048) == whole.decode_s(16, 16 * 2048)
    assert vllm.decode_s(64, 64 * 2048) != whole.decode_s(64, 64 * 2048)
    assert vllm.mixed_s(0, 0, [(256, 0)]) == whole.mixed_s(0, 0, [(256, 0)])
    assert vllm.mixed_s(0, 0, [(1024, 0)]) != whole.mixed_s(0, 0, [(1024, 0)])
    sglang, alone = wide("h100-sxm", Stack.SGLANG), wide("h100-sxm", Stack.SGLANG, overlap=False)
    assert sglang.decode_s(16, 16 * 2048) > alone.decode_s(16, 16 * 2048)  # which does not gain by it
    assert sglang.decode_s(256, 256 * 2048) < alone.decode_s(256, 256 * 2048)
