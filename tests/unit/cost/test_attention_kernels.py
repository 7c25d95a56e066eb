"""What prefill and decode kernels do with heads that share a KV head, and with long caches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.cost.sample_chips import sample_chip
from windtunnel.cost import attention as prefill
from windtunnel.cost import decode_attention as decode
from windtunnel.cost import query_tiles
from windtunnel.cost.choose import choose
from windtunnel.cost.fit import Fit
from windtunnel.cost.peaks import matrix_flops, synchronous_flops
from windtunnel.program.work import Family
from windtunnel.specs.catalogue import chip
from windtunnel.validation.measured import attention

CHIP = sample_chip()


def changed(family: str, **values: float) -> Fit:
    fit = choose(family, CHIP).fit
    return fit.with_values({**dict(fit.values), **values})


def seconds(
    family: Family, fit: Fit, *, kv_heads: float, q_len: float, kv_len: float, batch: float = 64.0
) -> float:
    one = np.ones(1)
    work = attention(
        family, "bf16",
        sequences=batch * one, heads=64.0 * one, kv_heads=kv_heads * one, q_len=q_len * one, kv_len=kv_len * one,
        qk_dim=128.0 * one, v_dim=128.0 * one,
    )  # fmt: skip
    model = prefill.times if family is Family.ATTENTION else decode.times
    return float(model(work, CHIP, fit).seconds[0])


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
