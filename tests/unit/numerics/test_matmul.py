"""Entry points: right values, the chip's rounding, its defaults, its refusals."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.errors import WindtunnelError
from windtunnel.numerics import casts
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import BF16, TF32
from windtunnel.numerics.grouped import chip_grouped_mm
from windtunnel.numerics.matmul import MathMode, chip_addmm, chip_linear, chip_matmul, default_mode
from windtunnel.numerics.profiles import (
    AMPERE,
    HOPPER,
    PROFILES,
    S4000,
    S5000,
    VOLTA,
    Exactness,
    NumericProfile,
    Operand,
    profile_named,
    profile_of,
)
from windtunnel.specs.catalogue import chip, chip_names
from windtunnel.specs.schema import Vendor

HALVES = [torch.float16, torch.bfloat16]
every_profile = pytest.mark.parametrize(
    "profile", [HOPPER, S5000, HOPPER.idealised()], ids=["h", "s", "ideal"]
)


def card(vendor: Vendor, capability: tuple[int, int], *, tf32_default: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        name="card",
        vendor=vendor,
        compute_capability=capability,
        tf32_default=tf32_default,
        peak_flops={"tf32": None},
    )


@every_profile
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5, 70), (70, 9)),
        ((70,), (70, 9)),
        ((5, 70), (70,)),
        ((70,), (70,)),
        ((3, 5, 70), (3, 70, 9)),
        ((2, 3, 5, 70), (70, 9)),
        ((2, 1, 5, 70), (3, 70, 9)),
        ((4, 1, 70), (70, 2)),
        ((0, 70), (70, 3)),
        ((4, 0), (0, 3)),
        ((0, 4, 5), (0, 5, 6)),
    ],
)
def test_shapes_follow_torch_matmul(profile: NumericProfile, dtype: torch.dtype, left, right) -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(left, generator=draw).to(dtype), torch.randn(right, generator=draw).to(dtype)
    got = chip_matmul(a, b, profile=profile)
    want = torch.matmul(a.double(), b.double())
    assert got.shape == want.shape
    assert got.dtype is dtype
    assert torch.allclose(got.double(), want, rtol=1e-2, atol=2e-2)


def test_one_rounding_from_the_exact_accumulator() -> None:
    a, b = torch.randn(6, 64).bfloat16(), torch.randn(64, 7).bfloat16()
    wide = exact_matmul(a.float(), b.float(), HOPPER.accumulators[Operand.BF16], (BF16, BF16))
    assert torch.equal(chip_matmul(a, b, profile=HOPPER), wide.bfloat16())
    assert torch.equal(chip_matmul(a, b, profile=HOPPER, out_dtype=torch.float32), wide)
    bias = torch.randn(7).bfloat16()
    assert torch.equal(chip_linear(a, b.t(), bias, profile=HOPPER), (wide + bias.float()).bfloat16())
    scaled = chip_addmm(bias, a, b, profile=HOPPER, beta=0.5, alpha=2.0)
    assert torch.equal(scaled, (wide * 2 + bias.float() * 0.5).bfloat16())


def test_beta_zero_does_not_read_the_addend() -> None:
    a = torch.ones(2, 16).bfloat16()
    nan = torch.full((2, 2), torch.nan).bfloat16()
    assert bool((chip_addmm(nan, a, a.t(), profile=HOPPER, beta=0) == 16).all())
    assert bool(chip_addmm(nan, a, a.t(), profile=HOPPER).isnan().all())


def test_tf32_only_where_it_is_switched_on() -> None:
    a, b = torch.randn(8, 64), torch.randn(64, 8)
    plain = chip_matmul(a, b, profile=HOPPER)
    assert torch.allclose(plain.double(), a.double() @ b.double(), atol=1e-4)
    tf32 = chip_matmul(a, b, profile=HOPPER, mode=MathMode(tf32_matmul=True))
    left, right = casts.truncate_to_tf32(a), casts.truncate_to_tf32(b)
    assert torch.equal(tf32, exact_matmul(left, right, HOPPER.accumulators[Operand.TF32], (TF32, TF32)))
    error = float((tf32.double() - a.double() @ b.double()).norm() / (a.double() @ b.double()).norm())
    assert 1e-4 < error < 2e-3


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.complex64, torch.complex128, torch.int64, torch.float32]
)
def test_other_dtypes_take_the_vector_units(dtype: torch.dtype) -> None:
    a, b = (torch.randn(2, 5, 9) * 8).to(dtype), (torch.randn(2, 9, 4) * 8).to(dtype)
    assert torch.allclose(chip_matmul(a, b, profile=S5000), torch.matmul(a, b))


def test_fp16_accumulation_is_coarser() -> None:
    a, b = torch.rand(8, 2048).half(), torch.rand(2048, 8).half()
    true = a.double() @ b.double()
    errors = [
        float(
            (chip_matmul(a, b, profile=AMPERE, mode=MathMode(fp16_accumulation=on)).double() - true)
            .abs()
            .max()
        )
        for on in (False, True)
    ]
    assert errors[1] > 4 * errors[0]


def test_default_switches() -> None:
    old, new = (
        default_mode(card(Vendor.MOORE_THREADS, (3, 1)), (2, 7)),
        default_mode(card(Vendor.MOORE_THREADS, (3, 1)), (2, 9)),
    )
    assert (old.tf32_matmul, new.tf32_matmul) == (True, False)
    assert default_mode(card(Vendor.MOORE_THREADS, (3, 1), tf32_default=True)).tf32_matmul
    nvidia = default_mode(card(Vendor.NVIDIA, (9, 0)))
    assert (nvidia.tf32_matmul, nvidia.tf32_convolution) == (False, True)


@pytest.mark.parametrize("name", chip_names())
def test_profiles_fit_the_catalogue(name: str) -> None:
    found = chip(name)
    profile = profile_of(found)
    for operand in (Operand.FP8, Operand.FP16, Operand.BF16, Operand.TF32):
        assert (operand in profile.accumulators) is (str(operand) in found.peak_flops), operand


def test_every_known_card_has_a_profile() -> None:
    assert profile_of(card(Vendor.NVIDIA, (9, 0))) is HOPPER
    assert profile_of(card(Vendor.MOORE_THREADS, (3, 1))) is S5000
    assert profile_of(card(Vendor.MOORE_THREADS, (2, 2))) is S4000
    assert all(profile_named(profile.name) is profile for profile in PROFILES)
    assert S5000.exactness is Exactness.SPECIFIED
    assert len(S5000.assumed) >= 3
    assert S5000.idealised().exactness is Exactness.IDEAL


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("E701", lambda: profile_of(card(Vendor.NVIDIA, (3, 5)))),
        (
            "E702",
            lambda: chip_matmul(torch.ones(2, 2).bfloat16(), torch.ones(2, 2).bfloat16(), profile=VOLTA),
        ),
        (
            "E703",
            lambda: chip_matmul(
                torch.ones(16, 16).to(torch.float8_e4m3fn),
                torch.ones(16, 16).to(torch.float8_e4m3fn),
                profile=S5000,
            ),
        ),
        ("E704", lambda: chip_matmul(torch.ones(2, 3).half(), torch.ones(2, 3).half(), profile=S5000)),
        ("E704", lambda: chip_matmul(torch.ones(2, 2).half(), torch.ones(2, 2), profile=S5000)),
        ("E704", lambda: chip_matmul(torch.ones(()), torch.ones(2), profile=S5000)),
        (
            "E705",
            lambda: chip_grouped_mm(
                torch.ones(4, 8), torch.ones(2, 8, 3), torch.tensor([3, 5]), profile=S5000
            ),
        ),
        ("E705", lambda: chip_grouped_mm(torch.ones(4, 8), torch.ones(2, 8, 3), None, profile=S5000)),
        (
            "E705",
            lambda: chip_grouped_mm(
                torch.ones(4, 8), torch.ones(2, 8, 3), torch.tensor([3, 2]), profile=S5000
            ),
        ),
    ],
)
def test_refusals(code: str, call) -> None:
    with pytest.raises(WindtunnelError) as caught:
        call()
    assert caught.value.code == code
    assert caught.value.hint


@every_profile
def test_grouped_products(profile: NumericProfile) -> None:
    tokens, experts = torch.randn(10, 32).bfloat16(), torch.randn(3, 32, 6).bfloat16()
    ends = torch.tensor([4, 4, 9], dtype=torch.int32)
    got = chip_grouped_mm(tokens, experts, ends, profile=profile)
    assert torch.equal(got[:4], chip_matmul(tokens[:4], experts[0], profile=profile))
    assert torch.equal(got[4:9], chip_matmul(tokens[4:9], experts[2], profile=profile))
    assert bool((got[9:] == 0).all())
    by_inner = chip_grouped_mm(tokens.t(), torch.randn(10, 5).bfloat16(), ends, profile=profile)
    assert by_inner.shape == (3, 32, 5)
    assert bool((by_inner[1] == 0).all())
    by_column = chip_grouped_mm(experts.transpose(1, 2), tokens.t(), ends, profile=profile)
    assert torch.allclose(by_column.t()[:9].float(), got[:9].float(), atol=0.1)
    both = chip_grouped_mm(experts.transpose(1, 2), experts, profile=profile)
    assert both.shape == (3, 6, 6)


@settings(max_examples=25, deadline=None)
@given(
    dtype=st.sampled_from(HALVES),
    shape=st.tuples(st.integers(0, 6), st.integers(0, 40), st.integers(0, 35)),
    seed=st.integers(0, 1000),
)
def test_transposition(dtype: torch.dtype, shape: tuple[int, int, int], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(shape[0], shape[1], generator=draw).to(dtype)
    b = torch.randn(shape[1], shape[2], generator=draw).to(dtype)
    assert torch.equal(chip_matmul(a, b, profile=HOPPER), chip_matmul(b.t(), a.t(), profile=HOPPER).t())


def test_the_cpu_precision_setting_is_put_back() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    chip_matmul(torch.ones(2, 2).bfloat16(), torch.ones(2, 2).bfloat16(), profile=HOPPER.idealised())
    assert torch.backends.mkldnn.matmul.fp32_precision == before
