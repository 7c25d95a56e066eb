"""What prefill and decode kernels do with heads that share a KV head, and with long caches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.cost.sample_chips import sample_chip
from windtunnel.cost import attention as prefill
from windtunnel.cost import decode_attention as decode
from windtunnel.cost.choose import choose
from windtunnel.cost.fit import Fit
from windtunnel.program.work import Family
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
        changed("decode_attention", combine_clocks=0.0),
        changed("decode_attention", combine_clocks=9000.0),
    )

    def paying(kv_len: float) -> float:
        shape = {"kv_heads": 8.0, "q_len": 1.0, "kv_len": kv_len}
        return seconds(Family.DECODE_ATTENTION, paid, **shape) - seconds(
            Family.DECODE_ATTENTION, free, **shape
        )

    assert paying(128) == 0.0
    assert paying(129) == pytest.approx(9000.0 / CHIP.clock_hz.value)


def test_heads_taken_one_by_one_read_the_cache_of_level_two() -> None:
    alone, together = changed("decode_attention", group_max=32.0), changed("decode_attention", group_max=1e6)
    shape = {"kv_heads": 1.0, "q_len": 1.0, "kv_len": 65_536.0}
    ratio = seconds(Family.DECODE_ATTENTION, alone, **shape) / seconds(
        Family.DECODE_ATTENTION, together, **shape
    )
    assert 1.5 < ratio < 64.0
