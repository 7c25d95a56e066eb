"""What a chip that was not measured takes from others: fits in hardware units, caches, clocks, intervals."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.unit.cost.sample_chips import sample_chip
from tests.unit.cost.sample_works import decode, gemm
from windtunnel.cost.batch import Batch
from windtunnel.cost.borrow import distance, kin_spread
from windtunnel.cost.choose import choose_from
from windtunnel.cost.fit import Fit, Regime, apart
from windtunnel.cost.fit_files import load, transfer
from windtunnel.cost.kernel_time import Floats
from windtunnel.cost.memory_path import CACHE_SHARE, memory_seconds
from windtunnel.cost.model import CostModel, Settings
from windtunnel.cost.peaks import power_slowdown
from windtunnel.cost.tiles import known_menu
from windtunnel.program.work import Family, Work
from windtunnel.specs.catalogue import chip

WIDE = (Regime(float("inf"), 0.5, 2.0),)


def fit(on: str, library: str, precision: str = "bf16", variant: str = "", **values: float) -> Fit:
    return Fit(
        family="attention", chip=on, library=library, precision=precision, variant=variant,
        values=tuple(sorted(values.items())), regimes=WIDE, rows=100,
    )  # fmt: skip


def chosen(fits: list[Fit], on: str, library: str, precision: str = "bf16", variant: str = "") -> Fit:
    found = choose_from(
        fits,
        chip(on),
        family="attention",
        library=library,
        precision=precision,
        variant=variant,
        repeated=True,
    )
    assert found is not None
    return found.fit


def seconds(nbytes: float, *, cold: bool = False) -> float:
    moved: Floats = np.array([nbytes])
    return float(memory_seconds(moved, sample_chip(), dram=0.9, cold=cold)[0])


def test_what_stays_in_the_cache_moves_faster_than_memory_could() -> None:
    size = sample_chip().l2_bytes.value
    assert seconds(size / 4) < 0.7 * seconds(size / 4, cold=True)
    assert seconds(size * 8) == pytest.approx(seconds(size * 8, cold=True), rel=1e-3)


def test_a_chip_far_above_its_base_clock_slows_most_under_load() -> None:
    assert 1.0 < power_slowdown(chip("a100-80g"), 0.5) < power_slowdown(chip("h100-sxm"), 0.5)
    assert power_slowdown(chip("h100-sxm"), 0.5) < power_slowdown(chip("l40s"), 0.5)
    assert power_slowdown(chip("h20"), 0.5) == 1.0


def test_a_kernel_of_another_harness_leaves_that_harness_behind() -> None:
    slow = fit("h100-sxm", "fa3@vllm-mla", floor_clocks=300_000.0, move=2.0, issue=1e4)
    usual = replace(fit("", "", floor_clocks=8_000.0, move=20.0, issue=2e4), precision="")
    assert chosen([slow, usual], "h100-sxm", "fa3@vllm-mla").value("floor_clocks") == 300_000.0
    borrowed = chosen([slow, usual], "h100-sxm", "fa3@sglang-mla")
    assert borrowed.value("floor_clocks") == 8_000.0
    assert borrowed.value("move") == 20.0
    assert borrowed.value("issue") == 1e4


def test_a_known_harness_comes_along_with_any_kernel_and_copies_at_the_speed_of_memory() -> None:
    usual = replace(fit("", "", floor_clocks=8_000.0, move=20.0, issue=2e4), precision="")
    kernel = replace(fit("b200", "trtllm@trtllm", floor_clocks=20_000.0, move=4.0, issue=3e4), clock_hz=2e9)
    harness = replace(fit("h100-sxm", "fa3@vllm", floor_clocks=15_000.0, move=6.0, issue=1e4), clock_hz=1.5e9)
    found = chosen([usual, kernel, harness], "b200", "trtllm@vllm")
    assert found.value("issue") == 3e4
    assert found.value("floor_clocks") == pytest.approx(20_000.0)  # 10 µs, as on the H100
    b200, h100 = (
        card.memory_bytes_per_s.value / card.multiprocessors.value / card.clock_hz.value
        for card in (chip("b200"), chip("h100-sxm"))
    )
    assert found.value("move") == pytest.approx(6.0 * b200 / h100)


def test_an_interval_that_ends_at_the_value_widens_at_that_end_too() -> None:
    low, high = apart(np.array([1.0, 0.8]), np.array([1.2, 1.0]), 0.2)
    assert low[0] == pytest.approx(np.exp(-0.2))
    assert high[1] == pytest.approx(np.exp(0.2))
    assert low[1] < 0.8
    assert high[0] > 1.2


def test_latent_decode_is_not_borrowed_from_matrix_units_of_another_kind() -> None:
    beside = {"floor_clocks": 1e4, "move": 10.0}
    usual = replace(fit("", "", issue=1.0, **beside), precision="")
    hopper = fit("h100-sxm", "trtllm@trtllm-mla", variant="mla", issue=2.0, **beside)
    ampere = fit("a100-80g", "trtllm@trtllm-mla", variant="mla", issue=3.0, **beside)

    def issue(on: str, fits: list[Fit]) -> float:
        found = choose_from(
            fits, chip(on), family="decode_attention", library="trtllm@trtllm-mla", precision="bf16",
            variant="mla", repeated=True,
        )  # fmt: skip
        assert found is not None
        return found.fit.value("issue")

    grouped = fit("b200", "trtllm@trtllm", issue=4.0, **beside)
    assert issue("b200", [usual, ampere]) == 1.0
    assert issue("b200", [usual, ampere, grouped]) == 1.0  # nor from grouped queries on the card itself
    assert issue("h100-sxm", [usual, ampere]) == 1.0
    assert issue("b200", [usual, hopper, ampere]) == 2.0  # Hopper's matrix units are of Blackwell's kind
    own = fit("b200", "trtllm@trtllm-mla", variant="mla", issue=5.0, **beside)
    assert issue("gb200", [usual, hopper, own]) == 5.0
    assert issue("h200", [usual, hopper, ampere]) == 2.0
    assert issue("l40s", [usual, hopper, ampere]) == 3.0  # Ada runs Ampere's programs


def test_a_relatives_plain_kernel_stands_before_another_generations_variant() -> None:
    ampere = fit("a100-80g", "trtllm@trtllm", issue=5e3)
    hopper = fit("h100-sxm", "trtllm@trtllm", variant="fp8_cache", issue=2e5)
    pooled = fit("", "trtllm@trtllm", variant="fp8_cache", issue=2e5)
    on_ada = chosen([ampere, hopper, pooled], "l40s", "trtllm@trtllm", variant="fp8_cache")
    assert on_ada.value("issue") == 5e3
    assert (
        chosen([ampere, hopper, pooled], "h200", "trtllm@trtllm", variant="fp8_cache").value("issue") == 2e5
    )


def test_another_precision_keeps_the_instructions_an_element() -> None:
    plain = fit("h100-sxm", "fa3", issue=2e4)
    assert plain.in_precision("fp8").value("issue") == 1e4
    assert plain.in_precision("fp16").value("issue") == 2e4


def test_a_cache_is_warm_in_a_benchmark_only() -> None:
    work = decode(8, 512)
    program = CostModel(chip("h100-sxm"), Settings(library="fa3@vllm"))
    benchmark = CostModel(chip("h100-sxm"), Settings(library="fa3@vllm", repeated=True))
    assert benchmark.kernel_time(work).seconds < program.kernel_time(work).seconds


@pytest.mark.parametrize(
    ("library", "work"), [("trtllm", gemm(64, 4096, 4096)), ("fa2@vllm", decode(8, 4096))]
)
def test_a_borrowed_fit_is_less_sure_than_an_own_one(library: str, work: object) -> None:
    def width(on: str) -> float:
        time = CostModel(chip(on), Settings(library=library)).kernel_time(work)  # type: ignore[arg-type]
        return time.high_s / time.low_s

    assert width("l40s") > width("a100-80g")


def test_intervals_of_borrowed_fits_are_those_of_what_was_left_out() -> None:
    for family in ("gemm", "attention", "decode_attention", "grouped_gemm", "deltanet", "pointwise"):
        assert transfer(family)
        for kind, regimes in transfer(family).items():
            assert kind.split("/")[0] in ("own", "kin", "far")
            assert all(regime.low < 0.9 and regime.high > 1.1 for regime in regimes)
            assert regimes[-1].upper_s == float("inf")


def come_from(on: str, library: str, precision: str = "bf16", variant: str = "", family: str = "gemm") -> str:
    found = choose_from(
        load(family), chip(on),
        family=family, library=library, precision=precision, variant=variant, repeated=True,
    )  # fmt: skip
    assert found is not None
    return str(distance(found.fit, chip(on), library, precision, variant))


def test_how_far_a_fit_comes() -> None:
    assert come_from("h100-sxm", "trtllm", "fp8") == "own/same/same"
    assert come_from("h200", "trtllm", "fp8") == "kin/same/same"
    assert come_from("l40s", "trtllm") == "far/same/same"
    assert come_from("b200", "vllm") == "own/same/same"  # cuBLAS is cuBLAS
    assert come_from("b200", "vllm", "fp8") == "far/same/same"  # whose tiles go by a rule of their own
    assert come_from("b200", "sglang", "fp8", "block128") == "own/other/same"
    assert come_from("gb300", "sglang", "fp8", "block128") == "kin/other/same"
    assert come_from("b200", "trtllm_gen@vllm", "fp8", family="grouped_gemm") == "own/same/other"


def test_a_fit_of_a_kin_is_surer_the_more_alike_the_chips_are() -> None:
    assert 0.1 == kin_spread("h100-sxm", chip("h100-sxm")) < kin_spread("h100-sxm", chip("h200"))
    assert kin_spread("h100-sxm", chip("h200")) < kin_spread("h100-sxm", chip("h20"))


def test_a_whole_module_stands_in_for_no_kernel() -> None:
    module = fit("h100-sxm", "fa3@vllm-module", issue=1e4)
    other = fit("h100-sxm", "triton@vllm", issue=3e4)
    assert chosen([module, other], "h100-sxm", "fa3@sglang").value("issue") == 3e4


def test_products_of_another_library_take_along_what_the_caller_adds() -> None:
    def product(on: str, library: str, **values: float) -> Fit:
        return replace(fit(on, library, "fp8", **values), family="gemm")

    caller = product("h100-sxm", "vllm", issue=1.0, floor_clocks=3e3, quantise=2.0)
    tuned = product("b200", "trtllm", issue=9.0, floor_clocks=2e4, quantise=4.0)
    found = choose_from(
        [caller, tuned], chip("b200"),
        family="gemm", library="vllm", precision="fp8", variant="", repeated=True,
    )  # fmt: skip
    assert found is not None
    assert not found.exact
    menu = known_menu("gemm", "vllm", "fp8", "")
    assert dict(found.fit.values) == {"issue": 9.0, "floor_clocks": 3e3, "quantise": 2.0, "menu": menu}


def test_a_long_floor_passes_in_seconds_and_a_short_one_in_clocks() -> None:
    ampere = chip("a100-80g").clock_hz.value
    slow = replace(fit("a100-80g", "triton@vllm", floor_clocks=100e-6 * ampere), clock_hz=ampere)
    quick = replace(fit("a100-80g", "triton@vllm", floor_clocks=4e-6 * ampere), clock_hz=ampere)
    ada = chip("l40s").clock_hz.value
    assert chosen([slow], "l40s", "triton@vllm").value("floor_clocks") / ada == pytest.approx(100e-6)
    assert chosen([quick], "l40s", "triton@vllm").value("floor_clocks") == pytest.approx(4e-6 * ampere)


def test_of_other_harnesses_the_one_that_saw_most_experts_is_taken() -> None:
    few, many = (
        replace(fit("h100-sxm", f"cutlass@{harness}", issue=1.0), family="grouped_gemm", rows=rows)
        for harness, rows in (("sglang", 100), ("trtllm", 5000))
    )
    found = choose_from(
        [few, many], chip("b200"),
        family="grouped_gemm", library="cutlass@vllm", precision="bf16", variant="", repeated=True,
    )  # fmt: skip
    assert found is not None
    assert found.fit.library == "cutlass@trtllm"


def _product(on: str, library: str, precision: str = "bf16", **values: float) -> Fit:
    return replace(fit(on, library, precision, **values), family="gemm")


def _product_chosen(fits: list[Fit], on: str, library: str, precision: str = "bf16") -> Fit:
    found = choose_from(
        fits, chip(on), family="gemm", library=library, precision=precision, variant="", repeated=True
    )
    assert found is not None
    return found.fit


def test_the_share_of_a_caches_bandwidth_stays_with_its_generation() -> None:
    there = _product("a100-80g", "trtllm", cache=0.4, issue=5.0)
    assert _product_chosen([there], "a100-40g", "trtllm").value("cache") == 0.4
    assert _product_chosen([there], "l40s", "trtllm").value("cache") == CACHE_SHARE


def test_one_kernel_runs_at_the_clock_of_the_data_that_its_caller_multiplies() -> None:
    measured = _product("b200", "trtllm", issue=9.0, throttle=0.8, throttle_s=1e-3)
    caller = _product("h100-sxm", "vllm", issue=1.0, throttle=0.3, throttle_s=2e-3)
    found = _product_chosen([measured, caller], "b200", "vllm")
    assert (found.value("issue"), found.value("throttle"), found.value("throttle_s")) == (9.0, 0.3, 2e-3)


def test_whoever_serves_in_few_bits_quantises_first() -> None:
    measured = _product("b200", "trtllm", "fp4", issue=9.0, quantise=2.0)
    assert _product_chosen([measured], "b200", "vllm", "fp4").value("quantise") == 2.0
    assert "quantise" not in dict(_product_chosen([measured], "b200", "torch", "fp4").values)


def test_kin_of_a_measured_chip_are_scaled_as_it_is() -> None:
    fits = [
        _product("h100-sxm", "vllm", "fp8", issue=2.0),
        _product("h100-sxm", "trtllm", "bf16", issue=3.0),
        _product("b200", "trtllm", "bf16", issue=6.0),
    ]
    assert _product_chosen(fits, "b200", "vllm", "fp8").value("issue") == 4.0
    assert _product_chosen(fits, "gb300", "vllm", "fp8").value("issue") == 4.0


@pytest.mark.parametrize("library", ["trtllm", "vllm", "sglang"])
@pytest.mark.parametrize("path", [("bf16", ""), ("fp8", ""), ("fp8", "block128")])
def test_no_chip_of_a_generation_is_slower_for_having_more(library: str, path: tuple[str, str]) -> None:
    """Bandwidth, then FLOPs, grow along each line; decode, prefill and a product of one tile."""
    lines = [
        ("h100-sxm", "gh200", "h200"),
        ("h20", "h200"),
        ("b200", "gb200"),
        ("b200", "b300"),
        ("b300", "gb300"),
    ]
    works = Batch.of_works(
        [gemm(m, n, 8192, path[0]) for m, n in ((1, 8192), (128, 8192), (8192, 8192), (8, 128))]
    )
    works = replace(works, variant=path[1])
    for line in lines:
        taken = [
            CostModel(chip(name), Settings(library=library, repeated=True)).price(works).seconds
            for name in line
        ]
        for slower, faster in pairwise(taken):
            bound = faster[[0, 2]] <= slower[[0, 2]] * 1.001 if line[0] != "h20" else faster[2] <= slower[2]
            assert np.all(bound), (line, slower, faster)


@pytest.mark.parametrize(("keys", "measured_s"), [(2048, 0.198e-3), (4096, 0.363e-3), (8192, 0.692e-3)])
def test_latent_decode_on_blackwell_is_near_what_was_published(keys: int, measured_s: float) -> None:
    """CUTLASS's kernel on a B200, 256 sequences and 128 heads in BF16 (sgl-project/sglang, pull request 6929): 3,055,
    3,330 and 3,492 GB/s of cache."""
    work = Work(
        family=Family.DECODE_ATTENTION, flops=2.0 * 256 * 128 * keys * (576 + 512), bytes_read=256 * keys * 1152.0,
        bytes_written=256 * 128 * 512 * 2.0, precision="bf16", kernels=1, variant="mla",
        dims=(
            ("batch", 256.0), ("heads", 128.0), ("kv_heads", 1.0), ("q_len", 1.0), ("kv_len", float(keys)),
            ("qk_dim", 576.0), ("v_dim", 512.0), ("causal", 0.0), ("window", 0.0), ("kv_bytes_per_token", 1152.0),
        ),
    )  # fmt: skip
    model = CostModel(chip("b200"), Settings(library="trtllm@trtllm-mla"))
    assert model.kernel_times([work])[0].seconds == pytest.approx(measured_s, rel=0.12)
