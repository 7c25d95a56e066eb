"""What the cost model answers: sources, limits, precisions, grouping, host time."""

from __future__ import annotations

import time

import pytest

from tests.unit.cost.sample_chips import PEAKS, sample_chip
from tests.unit.cost.sample_works import decode, gemm, prefill, streamed
from windtunnel.cost.choose import choose
from windtunnel.cost.fit import Fit, Regime
from windtunnel.cost.fit_files import load
from windtunnel.cost.model import MODELS, CostModel, Settings
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Source
from windtunnel.program.work import Family, Work
from windtunnel.specs.catalogue import chip as known_chip


def test_a_missing_precision_is_refused_with_the_ones_there_are() -> None:
    chip = sample_chip(peaks={name: value for name, value in PEAKS.items() if name != "fp8"})
    with pytest.raises(WindtunnelError) as refusal:
        CostModel(chip).kernel_time(gemm(128, 128, 128, "fp8"))
    assert refusal.value.code == "E501"
    assert "bf16" in str(refusal.value.values["precisions"])


def test_a_peak_that_is_assumed_makes_the_time_assumed() -> None:
    time_ = CostModel(sample_chip(assumed=("fp8",))).kernel_time(gemm(512, 512, 512, "fp8"))
    assert time_.source is Source.ASSUMED


def test_unknown_operations_are_priced_from_bytes_and_marked_assumed() -> None:
    answer = CostModel(sample_chip()).kernel_time(streamed(Family.UNKNOWN, 1e9))
    assert answer.source is Source.ASSUMED
    assert answer.high_s >= 2.5 * answer.seconds
    assert answer.limit == "memory"


def test_a_chip_without_measurements_is_never_called_calibrated() -> None:
    model = CostModel(sample_chip())
    for work in (gemm(4096, 4096, 4096), prefill(1, 4096, causal=True), decode(8, 4096)):
        assert model.kernel_time(work).source in (Source.ANALYTIC, Source.DATASHEET)


def test_a_measured_chip_is_calibrated_inside_the_fitted_range_only() -> None:
    model = CostModel(sample_chip("h100-sxm"))
    assert model.kernel_time(gemm(4096, 4096, 4096)).source is Source.CALIBRATED
    outside = model.kernel_time(gemm(4096, 4096, 4_000_000))
    assert outside.source is Source.ANALYTIC
    inside = model.kernel_time(gemm(8192, 51200, 51200))
    assert outside.high_s / outside.seconds > inside.high_s / inside.seconds


def test_fp32_products_follow_the_tf32_setting() -> None:
    work = gemm(8192, 8192, 8192, "fp32")
    strict = CostModel(sample_chip()).kernel_time(work).seconds
    assert CostModel(sample_chip(tf32_default=True)).kernel_time(work).seconds < strict / 3
    assert CostModel(sample_chip(), Settings(allow_tf32=True)).kernel_time(work).seconds < strict / 3
    forbidden = CostModel(sample_chip(tf32_default=True), Settings(allow_tf32=False))
    assert forbidden.kernel_time(work).seconds == pytest.approx(strict)


def test_a_busy_chip_runs_short_products_at_the_sustained_clock_too() -> None:
    burst, busy = CostModel(sample_chip()), CostModel(sample_chip(), Settings(sustained=True))
    for work in (gemm(2048, 2048, 2048), prefill(1, 1024, causal=True)):
        assert busy.kernel_time(work).seconds > burst.kernel_time(work).seconds
    long = gemm(65_536, 65_536, 65_536)
    assert busy.kernel_time(long).seconds == pytest.approx(burst.kernel_time(long).seconds, rel=0.01)
    assert busy.kernel_time(decode(1, 128)) == burst.kernel_time(decode(1, 128))


def test_attention_beyond_the_chips_head_dimensions_falls_back_to_math() -> None:
    model = CostModel(sample_chip())
    fused = prefill(1, 8192, causal=True)
    wide = Work(
        family=fused.family, flops=fused.flops * 4, bytes_read=fused.bytes_read * 4, precision="bf16", variant="flash",
        dims=tuple((name, 512.0 if name in ("qk_dim", "v_dim") else value) for name, value in fused.dims),
    )  # fmt: skip
    assert model.kernel_time(wide).seconds > 5 * model.kernel_time(fused).seconds


def test_what_launches_no_kernel_takes_no_device_time() -> None:
    model = CostModel(sample_chip())
    for work in (
        Work(family=Family.VIEW, kernels=0),
        Work(family=Family.HOST, kernels=0),
        Work(family=Family.COLLECTIVE),
    ):
        assert model.kernel_time(work).seconds == 0


def test_many_works_get_the_times_that_each_gets_alone_in_their_order() -> None:
    model = CostModel(sample_chip())
    works = [gemm(64, 512, 512), decode(4, 4096), gemm(128, 512, 512, "fp8"), streamed(Family.COPY, 1e6)]
    assert model.kernel_times(works) == [model.kernel_time(work) for work in works]


def test_a_few_hundred_works_are_priced_within_fifty_milliseconds() -> None:
    model = CostModel(sample_chip())
    works = [gemm(m, n, k) for m in (1, 64, 4096) for n in range(256, 8192, 256) for k in (512, 1024, 4096)]
    works += [streamed(family, 1e6) for family in MODELS if family is not Family.GEMM]
    model.kernel_times(works)
    began = time.process_time()
    model.kernel_times(works)
    assert time.process_time() - began < 0.15  # 50 ms on an idle machine


def test_host_time_grows_with_kernels_and_is_small_for_views() -> None:
    model = CostModel(sample_chip())
    view = model.host_time_s(Work(family=Family.VIEW, kernels=0))
    one = model.host_time_s(Work(family=Family.POINTWISE))
    assert 0 < view < one < model.host_time_s(Work(family=Family.POINTWISE, kernels=3))
    assert 3e-6 < one < 15e-6


def test_every_fit_names_its_source_and_holds_every_parameter_of_its_family() -> None:
    chip = sample_chip()
    for model, file, _ in MODELS.values():
        for fit in load(file):
            assert fit.source
            assert all(regime.low <= 1 <= regime.high for regime in fit.regimes)
            assert fit.regimes[-1].upper_s == float("inf")
        assert choose(file, chip).fit.chip == ""
        assert model is not None


def test_intervals_follow_the_duration() -> None:
    fit = Fit(
        family="x", chip="", values=(),
        regimes=(Regime(1e-5, 0.5, 2.0), Regime(float("inf"), 0.9, 1.1)),
    )  # fmt: skip
    import numpy as np

    low, high = fit.interval(np.array([1e-6, 1e-3]))
    assert low.tolist() == [0.5, 0.9]
    assert high.tolist() == [2.0, 1.1]


def test_no_kernel_is_shorter_than_an_empty_one() -> None:
    chip = known_chip("mtt-s5000")
    floor = chip.kernel_floor_s.value
    tiny = CostModel(chip).kernel_time(streamed(Family.POINTWISE, 1e3))
    assert tiny.seconds == pytest.approx(floor)
    assert tiny.limit == "latency"
    assert tiny.low_s < floor < tiny.high_s
    assert CostModel(chip).kernel_time(streamed(Family.POINTWISE, 1e9)).seconds > 50 * floor


@pytest.mark.parametrize("name", ["mtt-s5000", "h100-sxm", "b200"])
def test_half_the_floor_shortens_small_kernels_most(name: str) -> None:
    usual = CostModel(known_chip(name))
    halved = usual.with_floors(0.5)
    for work, least in ((gemm(64, 64, 64), 0.9), (streamed(Family.POINTWISE, 1e3), 0.7)):
        assert halved.kernel_time(work).seconds < least * usual.kernel_time(work).seconds
    large = gemm(16384, 16384, 16384)
    assert halved.kernel_time(large).seconds > 0.97 * usual.kernel_time(large).seconds
    assert halved.with_floors(2.0).kernel_time(large).seconds == usual.kernel_time(large).seconds
