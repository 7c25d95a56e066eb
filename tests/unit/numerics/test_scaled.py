"""Scaled products: definitions, the chips' refusals, the published acceptance gate of S5000 kernels."""

from __future__ import annotations

import pytest
import torch

from windtunnel.errors import WindtunnelError
from windtunnel.numerics import casts
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import E4M3, E5M2
from windtunnel.numerics.profiles import ADA, AMPERE, BLACKWELL, HOPPER, S5000, NumericProfile, Operand
from windtunnel.numerics.scaled import chip_block_scaled_mm, chip_scaled_mm
from windtunnel.numerics.scaled_checks import ScalingType
from windtunnel.numerics.scaled_more import chip_scaled_grouped_mm, chip_scaled_mm_v2
from windtunnel.numerics.scaling import (
    ACTIVATION,
    ROW,
    S5000_BLOCK,
    TE_BLOCK,
    TENSOR,
    WEIGHT,
    quantise,
    quantise_mx,
    swizzled,
    unswizzled,
)

FP8 = torch.float8_e4m3fn
one = torch.ones(())


def fp8(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = FP8) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


def weight(depth: int, columns: int, seed: int = 1, dtype: torch.dtype = FP8) -> torch.Tensor:
    return fp8(columns, depth, seed, dtype).t()


@pytest.mark.parametrize("profile", [ADA, HOPPER, BLACKWELL, S5000, S5000.idealised()], ids=lambda p: p.name)
@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16])
def test_tensor_and_row_scales(profile: NumericProfile, out_dtype: torch.dtype) -> None:
    a, b = fp8(20, 256), weight(256, 32)
    true = a.double() @ b.double()
    got = chip_scaled_mm(a, b, one * 0.5, one * 4, profile=profile, out_dtype=out_dtype)
    assert got.dtype is out_dtype
    assert torch.allclose(got.double(), true * 2, rtol=1e-2, atol=0.1)
    rows, columns = torch.rand(20, 1) + 0.5, torch.rand(1, 32) + 0.5
    got = chip_scaled_mm(a, b, rows, columns, profile=profile, out_dtype=out_dtype)
    assert torch.allclose(got.double(), true * rows.double() * columns.double(), rtol=1e-2, atol=0.1)


def test_fast_accumulation_skips_promotion_on_hopper_only() -> None:
    a, b = torch.rand(16, 1024).to(FP8), torch.rand(16, 1024).to(FP8).t()
    for profile, matters in ((HOPPER, True), (S5000, False), (ADA, False)):
        slow, fast = (
            chip_scaled_mm(a, b, one, one, profile=profile, out_dtype=torch.float32, use_fast_accum=on)
            for on in (False, True)
        )
        assert torch.equal(slow, fast) is not matters


def test_bias_and_fp8_result() -> None:
    a, b = fp8(16, 64), weight(64, 16)
    bias = torch.randn(16).bfloat16()
    wide = chip_scaled_mm(a, b, one, one, profile=S5000, out_dtype=torch.float32)
    got = chip_scaled_mm(a, b, one, one, profile=S5000, out_dtype=torch.bfloat16, bias=bias)
    assert torch.equal(got, (wide + bias.float()).bfloat16())
    narrow = chip_scaled_mm(a, b, one, one, profile=S5000, scale_result=one * 3)
    assert narrow.dtype is FP8
    assert torch.equal(narrow.float(), casts.round_to(wide * 3, E4M3))


def test_block_scales_are_applied_per_slab_of_128() -> None:
    x, w = torch.randn(24, 300), torch.randn(40, 300)
    a, b = quantise(x, E4M3, ACTIVATION, S5000_BLOCK), quantise(w, E4M3, WEIGHT, S5000_BLOCK)
    got = chip_block_scaled_mm(a, b, profile=S5000, out_dtype=torch.float32)
    want = torch.zeros(24, 40, dtype=torch.float64)
    for slab in range(3):
        part = slice(slab * 128, min(300, slab * 128 + 128))
        accumulator = S5000.accumulators[Operand.FP8]
        partial = exact_matmul(a.values[:, part], b.values[:, part].t(), accumulator, (E4M3, E4M3))
        scale = a.scale[:, slab, None] * b.scale[:1, slab]
        want = (want + scale.double() * partial.double()).float().double()
    assert torch.equal(got.double(), want)
    ideal = chip_block_scaled_mm(a, b, profile=S5000.idealised(), out_dtype=torch.float32)
    assert torch.allclose(ideal, got, rtol=1e-4, atol=1e-3)
    assert float((got - x @ w.t()).norm() / (x @ w.t()).norm()) < 0.05


def test_gradients_in_e5m2_mix_with_e4m3() -> None:
    grad, w = torch.randn(32, 256) * 1e-3, torch.randn(64, 256)
    a, b = quantise(grad, E5M2, ACTIVATION, S5000_BLOCK), quantise(w, E4M3, WEIGHT, S5000_BLOCK)
    for profile in (S5000, HOPPER, S5000.idealised()):
        got = chip_block_scaled_mm(a, b, profile=profile)
        assert float((got.float() - grad @ w.t()).norm() / (grad @ w.t()).norm()) < 0.1


def test_power_of_two_scales_through_scaled_mm_on_hopper() -> None:
    x, w = torch.randn(24, 256), torch.randn(32, 256)
    a, b = quantise(x, E4M3, ACTIVATION, TE_BLOCK), quantise(w, E4M3, WEIGHT, TE_BLOCK)
    by_library = chip_block_scaled_mm(a, b, profile=HOPPER)
    by_torch = chip_scaled_mm(
        a.values.to(FP8),
        b.values.to(FP8).t(),
        strided(a.scale),
        b.scale.t(),
        profile=HOPPER,
        out_dtype=torch.bfloat16,
    )
    assert torch.equal(by_library, by_torch)


def test_mx_scales_cost_no_precision_on_blackwell() -> None:
    x, w = torch.randn(16, 128), torch.randn(16, 128)
    a, b = quantise_mx(x, E4M3), quantise_mx(w, E4M3)
    scales = [swizzled(scale).to(torch.float8_e8m0fnu) for scale in (a.scale, b.scale)]
    got = chip_scaled_mm(
        a.values.to(FP8), b.values.to(FP8).t(), *scales, profile=BLACKWELL, out_dtype=torch.float32
    )
    want = a.dequantised().double() @ b.dequantised().double().t()
    assert torch.allclose(got.double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [1024, 11008])
def test_public_gate_of_s5000_kernels(depth: int) -> None:
    # MooreThreads/mate, gemm_fp8_nt_groupwise, granularity (1, -1, -1): U[0, 1), rtol = atol = 5e-3, BF16.
    draw = torch.Generator().manual_seed(0)
    a = torch.rand(16, depth, generator=draw).to(FP8)
    b = torch.rand(16, depth, generator=draw).to(FP8).t()
    true = a.float() @ b.float()

    def passes(profile: NumericProfile, fast: bool) -> bool:
        got = chip_scaled_mm(a, b, one, one, profile=profile, out_dtype=torch.bfloat16, use_fast_accum=fast)
        return bool(((got.float() - true).abs() <= 5e-3 + 5e-3 * true.abs()).all())

    assert passes(S5000, False)
    assert not passes(HOPPER, True)  # 13 bits without promotion would fail it


def strided(x: torch.Tensor) -> torch.Tensor:
    return x.t().contiguous().t()


@pytest.mark.parametrize(
    ("code", "profile", "call"),
    [
        ("E702", AMPERE, lambda p: chip_scaled_mm(fp8(16, 32), weight(32, 16), one, one, profile=p)),
        ("E706", HOPPER, lambda p: chip_scaled_mm(fp8(16, 32).float(), weight(32, 16), one, one, profile=p)),
        ("E706", HOPPER, lambda p: chip_scaled_mm(fp8(16, 33), weight(33, 16), one, one, profile=p)),
        ("E706", HOPPER, lambda p: chip_scaled_mm(fp8(16, 32), weight(48, 16), one, one, profile=p)),
        ("E706", HOPPER, lambda p: chip_scaled_mm(fp8(16, 32), fp8(32, 16), one, one, profile=p)),
        ("E706", HOPPER, lambda p: chip_scaled_mm(strided(fp8(16, 32)), weight(32, 16), one, one, profile=p)),
        (
            "E706",
            HOPPER,
            lambda p: chip_scaled_mm(
                fp8(16, 32, dtype=torch.float8_e5m2),
                weight(32, 16, dtype=torch.float8_e5m2),
                one,
                one,
                profile=p,
            ),
        ),
        (
            "E706",
            HOPPER,
            lambda p: chip_scaled_mm(
                fp8(16, 32), weight(32, 16), one, one, profile=p, bias=torch.ones(16), out_dtype=torch.float32
            ),
        ),
        (
            "E706",
            S5000,
            lambda p: chip_scaled_mm(
                fp8(16, 32), weight(32, 16), one, one, profile=p, bias=torch.ones(15), out_dtype=torch.float32
            ),
        ),
        ("E707", S5000, lambda p: chip_scaled_mm(fp8(16, 32), weight(32, 16), torch.ones(3), one, profile=p)),
        ("E707", S5000, lambda p: chip_scaled_mm(fp8(16, 32), weight(32, 16), one.half(), one, profile=p)),
        (
            "E707",
            S5000,
            lambda p: chip_scaled_mm(
                fp8(16, 256), weight(256, 16), torch.ones(16, 2), torch.ones(2, 1), profile=p
            ),
        ),
        (
            "E707",
            HOPPER,
            lambda p: chip_scaled_mm(
                fp8(16, 32),
                weight(32, 16),
                swizzled(torch.ones(16, 1)).to(torch.float8_e8m0fnu),
                swizzled(torch.ones(16, 1)).to(torch.float8_e8m0fnu),
                profile=p,
            ),
        ),
        (
            "E707",
            S5000,
            lambda p: chip_block_scaled_mm(
                quantise(torch.ones(4, 128), E4M3, TENSOR),
                quantise(torch.ones(4, 128), E4M3, WEIGHT),
                profile=p,
            ),
        ),
        (
            "E704",
            S5000,
            lambda p: chip_block_scaled_mm(
                quantise(torch.ones(4, 128), E4M3, ACTIVATION),
                quantise(torch.ones(4, 96), E4M3, WEIGHT),
                profile=p,
            ),
        ),
    ],
)
def test_refusals(code: str, profile: NumericProfile, call) -> None:
    with pytest.raises(WindtunnelError) as caught:
        call(profile)
    assert caught.value.code == code


def test_s5000_takes_what_nvidia_refuses() -> None:
    a, b = fp8(16, 32, dtype=torch.float8_e5m2), weight(32, 16, dtype=torch.float8_e5m2)
    got = chip_scaled_mm(a, b.contiguous(), one, one, profile=S5000, out_dtype=torch.float32)
    assert torch.allclose(got, a.float() @ b.float(), rtol=1e-5, atol=1e-4)


def test_empty_operands() -> None:
    for rows, depth, columns in ((0, 32, 16), (4, 0, 16), (4, 32, 0)):
        got = chip_scaled_mm(
            fp8(rows, depth), weight(depth, columns), one, one, profile=S5000, out_dtype=torch.float32
        )
        assert got.shape == (rows, columns)
        assert bool((got == 0).all())
    rows = quantise(torch.empty(0, 128), E4M3, ACTIVATION)
    assert chip_block_scaled_mm(rows, quantise(torch.ones(4, 128), E4M3, WEIGHT), profile=S5000).shape == (
        0,
        4,
    )
    assert ROW == (1, 0)


@pytest.mark.parametrize(("rows", "blocks"), [(16, 1), (128, 4), (130, 5), (300, 9)])
def test_swizzled_scales_lie_where_the_documentation_puts_them(rows: int, blocks: int) -> None:
    scale = torch.arange(1.0, 1 + rows * blocks).reshape(rows, blocks)
    flat = swizzled(scale)
    tiles = -(-blocks // 4)
    assert flat.numel() == -(-rows // 128) * tiles * 512
    for row in range(rows):
        for block in range(blocks):
            tile = row // 128 * tiles + block // 4
            at = 512 * tile + 16 * (row % 32) + 4 * (row % 128 // 32) + block % 4
            assert flat[at] == scale[row, block]
    assert torch.equal(unswizzled(flat, rows, blocks * 32), scale)


def test_two_square_blocks_are_refused() -> None:
    a, b = fp8(256, 256), weight(256, 256)
    square = torch.ones(2, 2)
    with pytest.raises(WindtunnelError) as caught:
        chip_scaled_mm(a, b, square, square.t(), profile=HOPPER)
    assert caught.value.code == "E707"


def by_name(
    profile: NumericProfile, kinds: tuple[ScalingType, ScalingType], scales: tuple, a, b, swizzle: int = 0
):
    return chip_scaled_mm_v2(
        a,
        b,
        [scales[0]],
        [kinds[0].value],
        [swizzle],
        [scales[1]],
        [kinds[1].value],
        [swizzle],
        profile=profile,
    )


def test_named_recipes_are_the_guessed_ones() -> None:
    a, b = fp8(24, 256), weight(256, 160)
    rows, columns = torch.rand(24, 1), torch.rand(1, 160)
    bf16 = torch.bfloat16
    both = (ScalingType.ROW, ScalingType.ROW)
    assert torch.equal(
        by_name(S5000, both, (rows, columns), a, b),
        chip_scaled_mm(a, b, rows, columns, profile=S5000, out_dtype=bf16),
    )
    both = (ScalingType.TENSOR, ScalingType.TENSOR)
    assert torch.equal(
        by_name(S5000, both, (one, one), a, b), chip_scaled_mm(a, b, one, one, profile=S5000, out_dtype=bf16)
    )
    left, line, square = strided(torch.rand(24, 2)), torch.rand(160, 2), torch.rand(2, 2)
    both = (ScalingType.BLOCK_1X128, ScalingType.BLOCK_1X128)
    assert torch.equal(
        by_name(HOPPER, both, (left, strided(line)), a, b),
        chip_scaled_mm(a, b, left, strided(line).t(), profile=HOPPER, out_dtype=bf16),
    )
    both = (ScalingType.BLOCK_1X128, ScalingType.BLOCK_128X128)
    padded = torch.nn.functional.pad(square, (0, 0, 0, 2))  # K first, padded to four blocks
    assert torch.equal(
        by_name(HOPPER, both, (left, padded), a, b),
        chip_scaled_mm(a, b, left, square.t().contiguous().t(), profile=HOPPER, out_dtype=bf16),
    )


@pytest.mark.parametrize(
    ("kinds", "swizzle"),
    [
        ((ScalingType.TENSOR, ScalingType.ROW), 0),
        ((ScalingType.BLOCK_1X32, ScalingType.BLOCK_1X32), 0),
        ((ScalingType.BLOCK_1X16, ScalingType.BLOCK_1X16), 1),
    ],
)
def test_named_recipes_that_do_not_exist(kinds: tuple, swizzle: int) -> None:
    with pytest.raises(WindtunnelError) as caught:
        by_name(BLACKWELL, kinds, (torch.ones(3), torch.ones(3)), fp8(16, 32), weight(32, 16), swizzle)
    assert caught.value.code == "E707"


@pytest.mark.parametrize("profile", [HOPPER, S5000.idealised()], ids=["hopper", "ideal"])
def test_grouped(profile: NumericProfile) -> None:
    tokens, experts = fp8(40, 64), torch.stack([weight(64, 32, seed) for seed in range(3)])
    ends = torch.tensor([10, 10, 36], dtype=torch.int32)
    left, right = torch.rand(40) + 0.5, torch.rand(3, 32) + 0.5
    got = chip_scaled_grouped_mm(tokens, experts, left, right, ends, profile=profile)
    want = chip_scaled_mm(
        tokens[10:36], experts[2], left[10:36, None], right[2][None], profile=S5000, out_dtype=torch.bfloat16
    )
    assert torch.allclose(got[10:36].float(), want.float(), rtol=2e-2, atol=0.05)
    assert bool((got[36:] == 0).all())
    inner = chip_scaled_grouped_mm(
        tokens.t(), fp8(40, 16, 5), torch.ones(3 * 64), torch.ones(3 * 16), ends, profile=profile
    )
    assert inner.shape == (3, 64, 16)
    assert bool((inner[1] == 0).all())
    across = chip_scaled_grouped_mm(
        experts.transpose(1, 2), tokens.t(), right, left, ends, profile=profile, out_dtype=torch.float32
    )
    assert torch.allclose(across.t()[:36], got[:36].float(), rtol=2e-2, atol=0.05)
    batch = chip_scaled_grouped_mm(experts.transpose(1, 2), experts, right, right, profile=profile)
    assert batch.shape == (3, 32, 32)


def test_grouped_refusals() -> None:
    tokens, experts = fp8(40, 64), torch.stack([weight(64, 32, seed) for seed in range(3)])
    ends = torch.tensor([10, 10, 36], dtype=torch.int32)
    for code, call in (
        (
            "E707",
            lambda: chip_scaled_grouped_mm(
                tokens, experts, torch.ones(3), torch.ones(3, 32), ends, profile=S5000
            ),
        ),
        ("E706", lambda: chip_scaled_grouped_mm(tokens.float(), experts, one, one, ends, profile=S5000)),
        ("E705", lambda: chip_scaled_grouped_mm(tokens, experts, one, one, None, profile=S5000)),
        ("E702", lambda: chip_scaled_grouped_mm(tokens, experts, one, one, ends, profile=AMPERE)),
    ):
        with pytest.raises(WindtunnelError) as caught:
            call()
        assert caught.value.code == code
