"""Casts against ml_dtypes: all codes, all 16-bit inputs, millions of FP32 patterns, both policies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from windtunnel.numerics import casts
from windtunnel.numerics.formats import (
    BF16,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E4M3FNUZ,
    E5M2,
    E5M2FNUZ,
    FP16,
    TF32,
    FloatFormat,
    Overflow,
    format_of,
)

ml_dtypes = pytest.importorskip("ml_dtypes")

ORACLE = {
    E4M3: ml_dtypes.float8_e4m3fn,
    E5M2: ml_dtypes.float8_e5m2,
    E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
    E2M1: ml_dtypes.float4_e2m1fn,
    E2M3: ml_dtypes.float6_e2m3fn,
    E3M2: ml_dtypes.float6_e3m2fn,
    BF16: ml_dtypes.bfloat16,
    FP16: np.float16,
}
SMALL = [fmt for fmt in ORACLE if fmt.bits <= 8]
named = pytest.mark.parametrize("fmt", list(ORACLE), ids=lambda fmt: fmt.name)
small = pytest.mark.parametrize("fmt", SMALL, ids=lambda fmt: fmt.name)


def patterns(count: int = 1 << 18) -> torch.Tensor:
    """Random FP32 bit patterns, values in FP8's range, and exact ties."""
    draw = torch.Generator().manual_seed(1)
    bits = torch.randint(-(2**31), 2**31 - 1, (count,), generator=draw).to(torch.int32).view(torch.float32)
    spread = torch.exp2(torch.randint(-20, 18, (count,), generator=draw).float())
    near = torch.randn(count, generator=draw) * spread
    ties = torch.randint(-256, 256, (count,), generator=draw) * 0.5
    ties = ties * torch.exp2(torch.randint(-18, 12, (count,), generator=draw).float())
    return torch.cat([bits, near, ties, torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan])])


def same(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    equal = (got == want) & (torch.signbit(got) == torch.signbit(want))
    return equal | (got.isnan() & want.isnan())


def oracle_values(x: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    with np.errstate(all="ignore"):
        return torch.from_numpy(x.numpy().astype(ORACLE[fmt]).astype(np.float32))


@named
def test_rounding_equals_ml_dtypes_on_random_patterns(fmt: FloatFormat) -> None:
    x = patterns()
    if not fmt.has_nan:  # ml_dtypes turns NaN into zero there; ours is PTX's largest value
        assert bool((casts.round_to(x[x.isnan()], fmt) == fmt.max).all())
        x = x[~x.isnan()]
    policy = Overflow.SPECIAL if fmt.has_nan else Overflow.SATURATE
    wrong = ~same(casts.round_to(x, fmt, policy), oracle_values(x, fmt))
    assert int(wrong.sum()) == 0, x[wrong][:8]


@named
@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_every_16_bit_input(fmt: FloatFormat, source: torch.dtype) -> None:
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(source)
    x = x[~x.isnan()] if not fmt.has_nan else x
    policy = Overflow.SPECIAL if fmt.has_nan else Overflow.SATURATE
    assert bool(same(casts.round_to(x, fmt, policy), oracle_values(x.float(), fmt)).all())


@small
def test_saturation_differs_from_ml_dtypes_only_on_overflow(fmt: FloatFormat) -> None:
    x = patterns()
    x = x[~x.isnan()]
    got, want = casts.round_to(x, fmt, Overflow.SATURATE), oracle_values(x, fmt)
    finite = want.isfinite()
    assert bool(same(got[finite], want[finite]).all())
    assert bool((got[~finite].abs() == fmt.max).all())
    assert bool((torch.sign(got[~finite]) == torch.sign(x[~finite])).all())


@small
def test_codes_equal_ml_dtypes_and_decode_back(fmt: FloatFormat) -> None:
    x = patterns(1 << 18)
    x = x if fmt.has_nan else x[~x.isnan()]
    policy = Overflow.SPECIAL if fmt.has_nan else Overflow.SATURATE
    codes = casts.encode(x, fmt, policy)
    with np.errstate(all="ignore"):
        want = x.numpy().astype(ORACLE[fmt])
    assert torch.equal(codes, torch.from_numpy(want.view(np.uint8).copy()))
    assert bool(same(casts.decode(codes, fmt), casts.round_to(x, fmt, policy)).all())


@small
def test_decoding_every_code(fmt: FloatFormat) -> None:
    codes = torch.arange(2**fmt.bits).to(torch.uint8)
    want = torch.from_numpy(codes.numpy().view(ORACLE[fmt]).astype(np.float32))
    assert bool(same(casts.decode(codes, fmt), want).all())
    many = codes.repeat(1 + 8192 // codes.numel())
    assert bool(same(casts.decode(many, fmt), want.repeat(1 + 8192 // codes.numel())).all())


@pytest.mark.parametrize("fmt", [E4M3, E5M2, E4M3FNUZ, E5M2FNUZ, BF16, FP16], ids=lambda fmt: fmt.name)
def test_default_policy_is_that_of_the_pytorch_cast(fmt: FloatFormat) -> None:
    assert fmt.dtype is not None
    assert format_of(fmt.dtype) is fmt
    x = patterns()
    assert bool(same(casts.round_to(x, fmt), x.to(fmt.dtype).float()).all())


def test_fp64_is_rounded_once() -> None:
    just_above_tie = torch.tensor([17 + 2.0**-40, 17 - 2.0**-40, 17.0], dtype=torch.float64)
    assert casts.round_to(just_above_tie, E4M3).tolist() == [18.0, 16.0, 16.0]
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(1 << 18, generator=draw, dtype=torch.float64)
    for fmt in (E4M3, E5M2, FP16):
        scale = 2.0 ** (fmt.mantissa_bits + 1)
        snapped = torch.round(x * scale) / scale * (1 + 2.0**-45)  # ties, nudged away from zero
        with np.errstate(all="ignore"):
            want = torch.from_numpy(snapped.numpy().astype(ORACLE[fmt]).astype(np.float32))
        if fmt is FP16:  # numpy rounds FP64 to FP16 once; ml_dtypes goes through FP32
            assert bool(same(casts.round_to(snapped, fmt), want).all())
        error = (casts.round_to(snapped, fmt).double() - snapped).abs()
        assert bool((error <= (want.double() - snapped).abs()).all())


def test_tf32_rounds_and_truncates() -> None:
    x = torch.tensor([1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-11 + 2.0**-20, -3.4e38, torch.inf, 1e-40])
    rounded = casts.round_to(x, TF32)
    assert rounded[:3].tolist() == [1.0, 1 + 2.0**-9, 1 + 2.0**-10]
    assert abs(float(rounded[3]) / 3.4e38 + 1) < 2.0**-11
    assert float(rounded[4]) == torch.inf
    assert casts.truncate_to_tf32(x)[:3].tolist() == [1.0, 1 + 2.0**-10, 1.0]
    assert casts.round_to(torch.tensor([torch.nan]), TF32).isnan().all()


def test_formats_state_their_limits() -> None:
    assert [fmt.max for fmt in (E4M3, E5M2, E4M3FNUZ, E5M2FNUZ)] == [448.0, 57344.0, 240.0, 57344.0]
    assert [fmt.max for fmt in (E2M1, E2M3, E3M2, FP16)] == [6.0, 7.5, 28.0, 65504.0]
    assert E4M3.smallest == 2.0**-9
    assert E5M2.smallest == 2.0**-16


def test_empty_and_strided_inputs() -> None:
    assert casts.round_to(torch.empty(0, 3), E4M3).shape == (0, 3)
    assert casts.decode(torch.empty(0, dtype=torch.uint8), E4M3).shape == (0,)
    x = torch.randn(8, 6).t()[::2]
    assert torch.equal(casts.round_to(x, E4M3), casts.round_to(x.contiguous(), E4M3))


def test_codes_of_wide_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bits"):
        casts.encode(torch.zeros(1), FP16)


@pytest.mark.slow
@named
def test_sixteen_million_patterns(fmt: FloatFormat) -> None:
    x = patterns(1 << 24)
    x = x if fmt.has_nan else x[~x.isnan()]
    policy = Overflow.SPECIAL if fmt.has_nan else Overflow.SATURATE
    assert bool(same(casts.round_to(x, fmt, policy), oracle_values(x, fmt)).all())


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [E4M3, E5M2], ids=lambda fmt: fmt.name)
def test_every_fp32_pattern(fmt: FloatFormat) -> None:
    # The low 8 bits matter only as zero, below, at and above half of what they make up.
    for low in (0x00, 0x01, 0x80, 0xFF):
        upper = torch.arange(-(2**23), 2**23).to(torch.int32)
        x = (upper << 8 | low).view(torch.float32)
        assert bool(same(casts.round_to(x, fmt, Overflow.SPECIAL), oracle_values(x, fmt)).all())
