"""What prefill and decode kernels do with heads that share a KV head, and with long caches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.cost.sample_chips import sample_chip
from windtunnel.cost import attention as prefill
from windtunnel.cost import decode_attention as decode
from windtunnel.cost import query_tiles
from windtunnel.cost.choose import choose
from windtunnel.cost.fit import Fit
from windtunnel.cost.model import CostModel, Settings
from windtunnel.cost.peaks import matrix_flops, synchronous_flops
from windtunnel.program.count import work_of
from windtunnel.program.work import Family
from windtunnel.recipes.architecture import GroupedQuery
from windtunnel.recipes.layers.cached import Batch, softmax_core
from windtunnel.specs.catalogue import chip
from windtunnel.specs.schema import Chip
from windtunnel.validation.measured import attention

CHIP = sample_chip()


def changed(family: str, **values: float) -> Fit:
    fit = choose(family, CHIP).fit
    return fit.with_values({**dict(fit.values), **values})


def seconds(
    family: Family,
    fit: Fit,
    *,
    kv_heads: float,
    q_len: float,
    kv_len: float,
    batch: float = 64.0,
    dim: float = 128.0,
    window: float = 0.0,
    variant: str = "",
    on: Chip = CHIP,
) -> float:
    one = np.ones(1)
    work = attention(
        family, "bf16",
        sequences=batch * one, heads=64.0 * one, kv_heads=kv_heads * one, q_len=q_len * one, kv_len=kv_len * one,
        qk_dim=dim * one, v_dim=dim * one, window=window * one, variant=variant,
    )  # fmt: skip
    model = prefill.times if family is Family.ATTENTION else decode.times
    return float(model(work, on, fit).seconds[0])


def test_packed_heads_share_tiles_where_queries_are_few() -> None:
    packed, plain = changed("attention", pack=1.0), changed("attention", pack=0.0)

    def gain(**shape: float) -> float:
        return seconds(Family.ATTENTION, plain, **shape) / seconds(Family.ATTENTION, packed, **shape)

    assert gain(kv_heads=1, q_len=2, kv_len=2) > 1.3
    assert gain(kv_heads=64, q_len=2, kv_len=2) == pytest.approx(1.0)
    assert gain(kv_heads=1, q_len=8192, kv_len=8192, batch=1.0) == pytest.approx(1.0, abs=0.02)


def test_a_split_cache_pays_for_putting_the_parts_together() -> None:
    free, paid = (
        changed("decode_attention", combine_clocks=0.0, rule=0.0, splits=32.0),
        changed("decode_attention", combine_clocks=9000.0, rule=0.0, splits=32.0),
    )

    def paying(kv_len: float, batch: float) -> float:
        shape = {"kv_heads": 8.0, "q_len": 1.0, "kv_len": kv_len, "batch": batch}
        return seconds(Family.DECODE_ATTENTION, paid, **shape) - seconds(
            Family.DECODE_ATTENTION, free, **shape
        )

    assert paying(128, 2.0) == 0.0
    assert paying(129, 2.0) == pytest.approx(9000.0 / CHIP.clock_hz.value)
    assert paying(4096, 64.0) == 0.0  # blocks enough for every multiprocessor without splitting


def test_flash_attention_2_never_splits_the_cache_of_heads_that_share_none() -> None:
    grouped = changed("decode_attention", rule=2.0, stream=10.0)
    whole = seconds(Family.DECODE_ATTENTION, grouped, kv_heads=64.0, q_len=1.0, kv_len=65_536.0, batch=1.0)
    split = seconds(Family.DECODE_ATTENTION, grouped, kv_heads=8.0, q_len=1.0, kv_len=65_536.0, batch=1.0)
    assert whole > 4.0 * split  # eight times the bytes of memory, but the time of one block's walk


def test_few_blocks_wait_for_the_longest_walk() -> None:
    slow, quick = changed("decode_attention", stream=4.0), changed("decode_attention", stream=400.0)
    few = {"kv_heads": 1.0, "q_len": 1.0, "kv_len": 512.0, "batch": 1.0}
    many = {"kv_heads": 8.0, "q_len": 1.0, "kv_len": 65_536.0, "batch": 64.0}
    assert seconds(Family.DECODE_ATTENTION, slow, **few) > seconds(Family.DECODE_ATTENTION, quick, **few)
    assert seconds(Family.DECODE_ATTENTION, quick, **many) > 0.9 * (
        64 * 65_536 * 8 * 256 * 2 / CHIP.memory_bytes_per_s.value
    )


def test_a_kernel_of_the_generation_before_gets_little_from_faster_matrix_units() -> None:
    hopper, blackwell = chip("h100-sxm"), chip("b200")
    for precision in ("bf16", "fp16"):
        old, new = (synchronous_flops(card, precision) for card in (hopper, blackwell))
        assert old < 0.7 * matrix_flops(hopper, precision)
        assert new / old == pytest.approx(
            blackwell.multiprocessors.value
            * blackwell.clock_hz.value
            / (hopper.multiprocessors.value * hopper.clock_hz.value)
        )
    ampere = chip("a100-80g")
    assert synchronous_flops(ampere, "bf16") == matrix_flops(ampere, "bf16")


def test_triton_takes_fewer_rows_where_shared_memory_is_little() -> None:
    dims = np.array([64.0, 128.0, 256.0, 512.0])
    rule = query_tiles.rule_of("triton@sglang")
    on = {
        name: query_tiles.rows(rule, dims, chip(name)).tolist() for name in ("h100-sxm", "a100-80g", "l40s")
    }
    assert on == {"h100-sxm": [128, 128, 128, 32], "a100-80g": [128, 128, 64, 32], "l40s": [64, 64, 64, 32]}
    assert query_tiles.rule_of("triton@vllm") == query_tiles.TRITON_16
    assert query_tiles.rule_of("fa3@vllm") == query_tiles.USUAL


def test_heads_taken_one_by_one_read_the_cache_of_level_two() -> None:
    alone, together = changed("decode_attention", group_max=32.0), changed("decode_attention", group_max=1e6)
    shape = {"kv_heads": 1.0, "q_len": 1.0, "kv_len": 65_536.0}
    ratio = seconds(Family.DECODE_ATTENTION, alone, **shape) / seconds(
        Family.DECODE_ATTENTION, together, **shape
    )
    assert 1.5 < ratio < 64.0


def test_a_cache_a_little_smaller_than_the_level_2_cache_is_gone_before_it_is_read_again() -> None:
    fit = changed(
        "decode_attention", repeats=1.0, rule=0.0, resident=8.0, stream=200.0, key_clocks=0.1, issue=1e5
    )
    held = CHIP.l2_bytes.value / (2.0 * 64.0 * 128.0 * 2.0)  # keys of one sequence that fill it

    def rate(share: float) -> float:
        shape = {"kv_heads": 64.0, "q_len": 1.0, "batch": 1.0}
        short, long = (
            seconds(Family.DECODE_ATTENTION, fit, kv_len=held * end, **shape) for end in (share, share + 0.02)
        )
        return long - short

    assert rate(0.95) > 1.5 * rate(0.5)


def test_a_window_costs_more_keys_than_it_holds() -> None:
    narrow = changed("decode_attention", window_keys=1.0, rule=0.0)
    wide = changed("decode_attention", window_keys=512.0, rule=0.0)
    shape = {"kv_heads": 8.0, "q_len": 1.0, "kv_len": 8192.0, "batch": 256.0}
    assert seconds(Family.DECODE_ATTENTION, wide, window=128.0, **shape) > 1.1 * seconds(
        Family.DECODE_ATTENTION, narrow, window=128.0, **shape
    )
    assert seconds(Family.DECODE_ATTENTION, wide, **shape) == seconds(
        Family.DECODE_ATTENTION, narrow, **shape
    )


def test_wide_heads_have_a_kernel_of_their_own() -> None:
    slow = changed("decode_attention", wide_stream=0.5)
    fast = changed("decode_attention", wide_stream=200.0)
    shape = {"kv_heads": 8.0, "q_len": 1.0, "kv_len": 8192.0, "batch": 4.0}
    assert seconds(Family.DECODE_ATTENTION, slow, dim=256.0, **shape) > 2 * seconds(
        Family.DECODE_ATTENTION, fast, dim=256.0, **shape
    )
    assert seconds(Family.DECODE_ATTENTION, slow, dim=128.0, **shape) == seconds(
        Family.DECODE_ATTENTION, fast, dim=128.0, **shape
    )


def test_few_blocks_are_taken_head_by_head_but_by_kernels_for_all_shapes() -> None:
    values = {"grouped_least": 0.25, "alone_floor_clocks": 9e5, "group_max": 32.0}
    fit = changed("decode_attention", **values)
    shape = {"kv_heads": 8.0, "q_len": 1.0, "kv_len": 128.0}
    hopper = {"on": chip("h100-sxm"), **shape}

    def by_head(batch: float, **more: object) -> bool:
        return seconds(Family.DECODE_ATTENTION, fit, batch=batch, **{**hopper, **more}) > 3e-4  # type: ignore[arg-type]

    assert by_head(4.0)  # 32 blocks of 33
    assert not by_head(5.0)
    assert not by_head(4.0, kv_len=256.0)
    assert not by_head(1.0, variant="fp8_cache")
    assert by_head(1.0, variant="fp8_cache", on=chip("l40s"))
    assert not by_head(1.0, on=chip("b200"))


def test_attention_in_stretches_is_taken_head_by_head_before_blackwell() -> None:
    batch, cache = Batch(sequences=128, context=4000), "float8_e4m3fn"
    whole = GroupedQuery(heads=40, kv_heads=8, head_dim=128)

    def taken(shape: GroupedQuery, on: str) -> float:
        core = softmax_core(shape, 1, batch, "bfloat16", cache)[1]
        model = CostModel(chip(on), Settings(library="trtllm@trtllm"))
        return model.kernel_times([work_of(core)])[0].seconds

    stretches = replace(whole, chunk=8192)
    assert taken(stretches, "h100-sxm") > 1.5 * taken(whole, "h100-sxm")
    assert taken(stretches, "b200") == taken(whole, "b200")


def test_engines_call_kernels_that_pytorch_does_not() -> None:
    card = chip("mtt-s5000")
    mixer = GroupedQuery(heads=16, kv_heads=2, head_dim=256)

    def priced(tokens: int, library: str) -> float:
        [_, op] = softmax_core(mixer, 4, Batch(sequences=1, new=tokens), "bfloat16", "bfloat16")
        return CostModel(card, Settings(library=library)).kernel_time(work_of(op)).seconds

    # torch_musa's scaled dot product ends at heads of 128 and writes the scores; MATE's FlashAttention 3 does not
    work = 4 * 4 * 16384**2 * 256 / 2
    assert (
        work / card.peak_flops["bf16"].value
        < priced(16384, "mate")
        < 4 * work / card.peak_flops["bf16"].value
    )
    assert priced(16384, "") == priced(16384, "torch") > 3 * priced(16384, "mate")
    written = 4 * 16384**2 * 2 * prefill.MATH_PASSES
    assert priced(16384, "") > written / card.memory_bytes_per_s.value
