"""Laws that hold whatever the parameters: more work never takes less time, faster chips are never slower."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.cost.sample_chips import sample_chip
from tests.unit.cost.sample_works import decode, gemm, grouped, prefill, rows_of, streamed
from windtunnel.cost.model import MODELS, CostModel
from windtunnel.program.work import Family, Work

SLOW, FAST = CostModel(sample_chip()), CostModel(sample_chip(speed=1.7))
SIZES = st.integers(1, 20_000)
STREAMED = [
    Family.POINTWISE, Family.RANDOM, Family.COPY, Family.OPTIMIZER, Family.REDUCTION, Family.SORT, Family.SCAN,
    Family.EMBEDDING, Family.SCATTER, Family.FFT, Family.LINALG, Family.UNKNOWN, Family.HOST_COPY,
]  # fmt: skip


def seconds(work: Work, model: CostModel = SLOW) -> float:
    return model.kernel_time(work).seconds


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES, st.sampled_from(["m", "n", "k"]), st.floats(1.0, 3.0))
def test_a_larger_product_never_takes_less(m: int, n: int, k: int, grown: str, factor: float) -> None:
    sizes = {"m": m, "n": n, "k": k}
    larger = {**sizes, grown: math.ceil(sizes[grown] * factor)}
    assert seconds(gemm(**larger)) >= seconds(gemm(**sizes)) * (1 - 1e-9)


def test_the_time_of_a_product_is_monotone_in_m_row_by_row() -> None:
    times = [seconds(gemm(m, 4096, 4096)) for m in range(1, 700, 3)]
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in pairwise(times))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 65_536), st.integers(1, 64), st.floats(1.0, 3.0))
def test_more_tokens_to_experts_never_take_less(tokens: int, experts: int, factor: float) -> None:
    more = math.ceil(tokens * factor)
    active = min(experts, tokens)
    assert seconds(grouped(more, experts, active)) >= seconds(grouped(tokens, experts, active)) * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 16), st.integers(1, 32_768), st.booleans(), st.sampled_from(["batch", "length"]), st.booleans()
)  # fmt: skip
def test_longer_attention_never_takes_less(
    batch: int, length: int, causal: bool, grown: str, backward: bool
) -> None:
    family = Family.ATTENTION_BACKWARD if backward else Family.ATTENTION
    small = prefill(batch, length, causal=causal, family=family)
    large = prefill(
        batch * 2 if grown == "batch" else batch,
        length * 2 if grown == "length" else length,
        causal=causal,
        family=family,
    )
    assert seconds(large) >= seconds(small) * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 512), st.integers(1, 100_000), st.sampled_from(["batch", "kv_len"]))
def test_a_longer_cache_never_takes_less(batch: int, kv_len: int, grown: str) -> None:
    large = decode(batch * 2, kv_len) if grown == "batch" else decode(batch, kv_len * 2)
    assert seconds(large) >= seconds(decode(batch, kv_len)) * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(STREAMED), st.floats(1, 1e10), st.floats(1.0, 8.0))
def test_more_bytes_never_take_less(family: Family, nbytes: float, factor: float) -> None:
    assert seconds(streamed(family, nbytes * factor)) >= seconds(streamed(family, nbytes)) * (1 - 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([Family.NORM, Family.SOFTMAX]), st.integers(1, 65_536), st.integers(1, 16_384))
def test_more_rows_never_take_less(family: Family, rows: int, columns: int) -> None:
    assert seconds(rows_of(family, rows * 2, columns)) >= seconds(rows_of(family, rows, columns)) * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES)
def test_a_chip_with_higher_rates_is_never_slower(m: int, n: int, k: int) -> None:
    for work in (
        gemm(m, n, k),
        prefill(1, m, causal=True),
        decode(max(1, n // 100), k),
        streamed(Family.POINTWISE, n),
    ):
        assert seconds(work, FAST) <= seconds(work, SLOW) * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(MODELS)), st.floats(0, 1e9), st.floats(0, 1e9))
def test_every_family_answers_with_an_interval_around_its_value(
    family: Family, read: float, written: float
) -> None:
    time = SLOW.kernel_time(Work(family=family, bytes_read=read, bytes_written=written, precision="bf16"))
    assert 0 < time.low_s <= time.seconds <= time.high_s < math.inf


def test_no_product_runs_above_the_peak() -> None:
    for size in (512, 2048, 8192, 32768):
        assert seconds(gemm(size, size, size)) > 2 * size**3 / 1000e12


def test_causal_attention_takes_about_half_of_full() -> None:
    ratio = seconds(prefill(1, 16_384, causal=True)) / seconds(prefill(1, 16_384, causal=False))
    assert ratio == pytest.approx(0.5, abs=0.1)
