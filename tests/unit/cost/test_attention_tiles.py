"""What the sources of attention libraries state: tiles, blocks that fit on a multiprocessor, copies beside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from windtunnel.cost import attention as prefill
from windtunnel.cost import decode_attention as decode
from windtunnel.cost import query_tiles
from windtunnel.cost.attention import keys_visited
from windtunnel.cost.borrow import of_another_harness, prefill_facts
from windtunnel.cost.choose import choose
from windtunnel.cost.decode_attention import ALL_GROUPS
from windtunnel.cost.fit import Fit
from windtunnel.cost.fit_files import load
from windtunnel.cost.occupancy import paged_blocks
from windtunnel.cost.xqa import xqa_elsewhere
from windtunnel.program.work import Family
from windtunnel.specs.catalogue import chip
from windtunnel.validation.measured import attention

HEADS = np.array([64.0, 128.0, 192.0, 256.0])


def seconds(family: Family, fit: Fit, on: str, variant: str = "", /, **shape: float) -> float:
    one = np.ones(1)
    given = {
        "batch": 1.0,
        "heads": 32.0,
        "kv_heads": 8.0,
        "q_len": 1.0,
        "kv_len": 1.0,
        "dim": 128.0,
        "window": 0.0,
    }
    x = {name: value * one for name, value in {**given, **shape}.items()}
    work = attention(
        family, "bf16", sequences=x["batch"], heads=x["heads"], kv_heads=x["kv_heads"], q_len=x["q_len"],
        kv_len=x["kv_len"], qk_dim=x["dim"], v_dim=x["dim"], window=x["window"], variant=variant,
        kv_element_bytes=1.0 if variant else 2.0,
    )  # fmt: skip
    model = prefill.times if family is Family.ATTENTION else decode.times
    return float(model(work, chip(on), fit).seconds[0])


def decoding(library: str, on: str, variant: str = "", /, **values: float) -> Fit:
    fit = choose(
        "decode_attention", chip(on), library=library, precision="bf16", variant=variant, repeated=True
    ).fit
    return fit.with_values({**dict(fit.values), **values})


def prefilling(library: str, on: str, /, **values: float) -> Fit:
    fit = choose("attention", chip(on), library=library, precision="bf16", repeated=True).fit
    return fit.with_values({**dict(fit.values), **values})


def test_ada_holds_one_block_of_flash_attention_2_where_an_a100_holds_two() -> None:
    held = {
        name: paged_blocks(HEADS, chip(name)).tolist()
        for name in ("a100-80g", "h100-sxm", "l40s", "rtx-4080")
    }
    assert held["a100-80g"] == [2, 2, 2, 1]
    assert held["h100-sxm"] == [3, 2, 3, 2]
    assert held["l40s"] == held["rtx-4080"] == [1, 1, 1, 1]


def test_blocks_that_wait_for_their_first_tiles_come_in_as_many_waves_as_fit() -> None:
    fit = decoding("fa2@vllm", "a100-80g", floor_clocks=0.0)
    shape = {"batch": 1024.0, "kv_len": 2.0}
    clocks = {
        on: seconds(Family.DECODE_ATTENTION, fit, on, **shape) * chip(on).clock_hz.value
        for on in ("a100-80g", "l40s")
    }
    blocks = 1024 * 8
    waves = np.ceil(blocks / (2 * 108)), np.ceil(blocks / 142)
    assert clocks["l40s"] / clocks["a100-80g"] == pytest.approx(waves[1] / waves[0], rel=0.1)


@pytest.mark.parametrize("window", [128.0, 65_536.0])
def test_flash_attention_2_packs_no_heads_under_a_window(window: float) -> None:
    fit = decoding("fa2@vllm", "l40s")
    shape = {"batch": 512.0, "kv_len": 32.0}
    open_s = seconds(Family.DECODE_ATTENTION, fit, "l40s", **shape)
    assert seconds(Family.DECODE_ATTENTION, fit, "l40s", window=window, **shape) > 3.0 * open_s
    alone = {"heads": 8.0, **shape}
    assert seconds(Family.DECODE_ATTENTION, fit, "l40s", window=window, **alone) == pytest.approx(
        seconds(Family.DECODE_ATTENTION, fit, "l40s", **alone), rel=0.01
    )


def test_a_window_keeps_flash_attention_2_from_splitting_keys() -> None:
    fit = decoding("fa2@vllm", "l40s")
    shape = {"batch": 1.0, "kv_len": 8192.0}
    assert seconds(Family.DECODE_ATTENTION, fit, "l40s", window=8192.0, **shape) > 4.0 * seconds(
        Family.DECODE_ATTENTION, fit, "l40s", **shape
    )


def test_only_tensorrt_llms_own_engine_takes_heads_one_by_one() -> None:
    own = decoding("trtllm@trtllm", "b200")
    assert own.value("group_max") == 32.0
    for library in ("trtllm@vllm", "trtllm@sglang"):
        called = decoding(library, "b200")
        assert (called.value("group_max"), called.value("grouped_least")) == (ALL_GROUPS, 0.0)


def test_ada_widens_an_8_bit_cache_in_tensorrt_llms_kernel_of_16_bit_ones_and_never_splits_it() -> None:
    wide, narrow = decoding("trtllm@trtllm", "l40s"), decoding("trtllm@trtllm", "l40s", "fp8_cache")
    assert (wide.chip, narrow.chip) == ("h100-sxm", "h100-sxm")
    assert narrow.value("stream") == wide.value("stream") / 2
    shape = {"batch": 64.0, "heads": 16.0, "kv_heads": 1.0, "kv_len": 4096.0}
    assert (
        seconds(Family.DECODE_ATTENTION, narrow, "l40s", "fp8_cache", **shape)
        > seconds(Family.DECODE_ATTENTION, narrow, "l40s", "fp8_cache", **{**shape, "kv_len": 2048.0}) * 1.5
    )  # 64 blocks on 142 multiprocessors: twice the keys, nearly twice the time
    assert decoding("trtllm@trtllm", "h20", "fp8_cache").variant == "fp8_cache"
    assert decoding("trtllm@trtllm", "b300", "fp8_cache").variant == "fp8_cache"


def test_flashinfer_takes_the_rows_that_heads_and_queries_make_together() -> None:
    rule = query_tiles.rule_of("flashinfer@sglang")
    dim = np.full(4, 128.0)
    together = np.array([8.0, 17.0, 64.0, 65.0])
    assert query_tiles.rows(rule, dim, chip("l40s"), together).tolist() == [16, 64, 64, 128]
    assert query_tiles.rows(rule, dim * 2, chip("l40s"), together).tolist() == [16, 64, 64, 64]
    assert prefilling("flashinfer@vllm", "l40s").value("tile") == rule


def test_tiles_of_keys_are_computed_whole() -> None:
    one = np.ones(1)
    work = attention(
        Family.ATTENTION, "bf16", sequences=one, heads=one, kv_heads=one, q_len=4.0 * one, kv_len=4.0 * one,
        qk_dim=64.0 * one, v_dim=64.0 * one,
    )  # fmt: skip
    assert keys_visited(work, queries=64.0, key_tile=256.0)[0][0] == 256.0
    assert keys_visited(work, queries=64.0)[0][0] == 4.0


def test_triton_computes_powers_of_two() -> None:
    dims = np.array([64.0, 80.0, 192.0, 256.0])
    assert query_tiles.padded_dim(query_tiles.TRITON_16, dims).tolist() == [64, 128, 256, 256]
    assert query_tiles.padded_dim(query_tiles.USUAL, dims).tolist() == dims.tolist()
    fit = prefilling("triton@vllm", "l40s", wide=1.0)
    shape = {"q_len": 4096.0, "kv_len": 4096.0}
    narrow, wide = (seconds(Family.ATTENTION, fit, "l40s", dim=dim, **shape) for dim in (160.0, 256.0))
    assert narrow > 0.95 * wide
    plain = fit.with_values({**dict(fit.values), "tile": 0.0})
    assert seconds(Family.ATTENTION, plain, "l40s", dim=160.0, **shape) < 0.9 * seconds(
        Family.ATTENTION, plain, "l40s", dim=256.0, **shape
    )


def test_what_a_harness_copies_passes_through_the_memory_that_there_is() -> None:
    fit = prefilling("trtllm@trtllm", "a100-80g", move=1000.0, floor_clocks=0.0, fill_clocks=0.0)
    shape = {"batch": 64.0, "heads": 32.0, "kv_heads": 32.0, "q_len": 64.0, "kv_len": 64.0}
    copied = seconds(Family.ATTENTION, fit, "l40s", **shape)
    untouched = fit.with_values({**dict(fit.values), "copies": 0.0})
    assert copied > 1.5 * seconds(Family.ATTENTION, untouched, "l40s", **shape)


def test_new_keys_alone_are_written_beside_by_vllm_and_sglang() -> None:
    for library in ("fa3@vllm", "fa3@sglang"):
        fit = prefilling(library, "h100-sxm", move=0.5, floor_clocks=0.0)
        few, many = (
            seconds(Family.ATTENTION, fit, "h100-sxm", kv_heads=kv, q_len=256.0, kv_len=256.0, batch=64.0)
            for kv in (1.0, 32.0)
        )
        assert many > 5.0 * few


def test_queries_are_narrowed_only_where_the_kernel_takes_8_bit_ones() -> None:
    def narrowed(library: str, precision: str, variant: str) -> bool:
        return prefill_facts(library, precision, variant)["quantised"] > 0

    assert narrowed("fa3@vllm", "bf16", "fp8_cache")
    assert narrowed("trtllm@sglang", "fp8", "")
    assert not narrowed("fa3@sglang", "fp8", "")  # handed 8-bit queries by its benchmark
    assert not narrowed("flashinfer@sglang", "bf16", "fp8_cache")
    assert not narrowed("triton@sglang", "bf16", "fp8_cache")


def test_what_a_harness_spends_passes_in_seconds() -> None:
    family = load("attention")
    kernel = next(fit for fit in family if (fit.chip, fit.library) == ("a100-80g", "fa2@vllm"))
    path = ("bf16", "")
    there = [
        fit
        for fit in family
        if fit.library.endswith("@sglang") and fit.chip and (fit.precision, fit.variant) == path
    ]
    usual = float(np.median([fit.value("floor_clocks") / fit.clock_hz for fit in there]))
    for name in ("l40s", "a100-80g"):
        called = of_another_harness(kernel, family, "flashinfer@sglang", chip(name))
        assert called.value("floor_clocks") / chip(name).clock_hz.value == pytest.approx(usual)


def test_a_harness_is_known_from_kernels_that_ask_as_much_of_it() -> None:
    family = load("decode_attention")
    kernel = next(
        fit
        for fit in family
        if (fit.chip, fit.library, fit.variant) == ("b200", "trtllm@trtllm", "fp8_cache")
    )
    called = of_another_harness(kernel, family, "trtllm@sglang", chip("b200"))
    alike = next(
        fit
        for fit in family
        if (fit.chip, fit.library, fit.variant) == ("h100-sxm", "fa3@sglang", "fp8_cache")
    )
    assert called.value("floor_clocks") / kernel.clock_hz == pytest.approx(
        alike.value("floor_clocks") / alike.clock_hz
    )


def test_a_chip_that_was_measured_with_8_bit_caches_keeps_its_own() -> None:
    ada = chip("l40s")
    family = load("decode_attention")
    hopper = next(
        fit for fit in family if (fit.chip, fit.library, fit.variant) == ("h100-sxm", "trtllm@trtllm", "")
    )
    own = replace(hopper, chip="l40s", variant="fp8_cache")
    path = ("trtllm@trtllm", "bf16", "fp8_cache")
    assert xqa_elsewhere([*family, own], ada, *path) is None
    assert xqa_elsewhere([*family, own], chip("rtx-4080"), *path) is None
    assert xqa_elsewhere(family, ada, *path) is not None
    assert xqa_elsewhere(family, chip("b200"), *path) is None
