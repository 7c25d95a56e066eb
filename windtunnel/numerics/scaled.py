"""Scaled FP8 products: ``torch._scaled_mm`` with its refusals, and the block-scaled GEMM of kernel libraries.

Never ``torch._scaled_mm`` itself on the CPU: its reference kernel is 1,000 times slower than FP32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics import casts
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import BF16, E4M3, FP8_DTYPES, FloatFormat, format_of
from windtunnel.numerics.gemm import ideal_product, narrow_product
from windtunnel.numerics.profiles import NumericProfile, Operand, ScaleRecipe
from windtunnel.numerics.scaled_checks import BLOCK, MX_BLOCK, check_scaled_mm, refuse_scales
from windtunnel.numerics.scaling import Quantised, expand_tiles, unswizzled


def chip_scaled_mm(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    *,
    profile: NumericProfile,
    bias: Tensor | None = None,
    scale_result: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    """``torch._scaled_mm``: FP8 [M, K] by FP8 [K, N] with dequantising factors.

    Scales: one number each; or [M, 1] and [1, N]; or blocks of 128 along K ([M, K/128] or [M/128, K/128], and
    [K/128, N] or [K/128, N/128]); or E8M0 blocks of 32 along K, swizzled as cuBLAS wants them. What the
    chip's own ``_scaled_mm`` does not take is refused. Per-tensor and per-row scales apply to the FP32 sum
    (their product first), then the bias, then one rounding.

    Raises:
        WindtunnelError: E702 no FP8 on the chip, E706 operands, bias or layout that the chip refuses, E707
            scales that it does not take.
    """
    recipe = check_scaled_mm(a, b, scale_a, scale_b, profile=profile, bias=bias, out_dtype=out_dtype)
    if recipe is ScaleRecipe.BLOCK_1X128:
        values = casts.values_of(a), casts.values_of(b.t())
        wide = _blocks(*values, scale_a, scale_b.t(), _formats(a, b), profile)
    elif recipe is ScaleRecipe.MX_1X32:
        wide = _mx(a, b, scale_a, scale_b, profile)
    else:
        wide = narrow_product(a, b, Operand.FP8, profile, fast=use_fast_accum)
        wide = wide * (scale_a.float().reshape(-1, 1) * scale_b.float().reshape(1, -1))
    if bias is not None:
        wide = wide + bias.float()
    dtype = out_dtype or a.dtype
    fmt = format_of(dtype)
    if fmt is not None and dtype in FP8_DTYPES:
        wide = wide if scale_result is None else wide * scale_result.float()
        return casts.round_to(wide, fmt).to(dtype)
    return wide.to(dtype)


def chip_block_scaled_mm(
    a: Quantised, b: Quantised, *, profile: NumericProfile, out_dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """``a @ b.T`` for two tensors quantised along K, as block-scaled FP8 kernels (DeepGEMM, MATE) compute it.

    Args:
        a, b: [M, K] and [N, K], tiles 1×128 or 128×128. The tensor core's sum over 128 products is
            multiplied by both scales and added to an FP32 sum in one FFMA.

    Raises:
        WindtunnelError: E702 no FP8 on the chip, E704 inner dimensions differ, E707 other tiles.
    """
    for side, operand in (("a", a), ("b", b)):
        if operand.tile not in ((1, BLOCK), (BLOCK, BLOCK)):
            refuse_scales(profile, f"tile of {side} is {operand.tile}, not 1x128 or 128x128", {})
    if a.values.shape[1] != b.values.shape[1]:
        raise WindtunnelError(
            "E704",
            "these two tensors do not multiply: inner dimensions differ",
            hint="both operands of a block-scaled product are quantised along K, the second as [N, K]",
            values={"a": tuple(a.values.shape), "b": tuple(b.values.shape)},
        )
    wide = _blocks(a.values, b.values, a.scale, b.scale, (a.fmt, b.fmt), profile)
    return wide.to(out_dtype)


def _blocks(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    formats: tuple[FloatFormat, FloatFormat],
    profile: NumericProfile,
) -> Tensor:
    # b is [N, K], like a: elementwise work on transposed views is ten times slower.
    left, right = _rows_of_tiles(scale_a, a.shape[0]), _rows_of_tiles(scale_b, b.shape[0])
    accumulator = profile.accumulator(Operand.FP8).promoted_every(BLOCK)
    if not profile.ideal:
        return exact_matmul(a, b.t(), accumulator, formats, scales=(left, right.t()))
    a = a * expand_tiles(left, (1, BLOCK), *a.shape)
    b = b * expand_tiles(right, (1, BLOCK), *b.shape)
    return ideal_product(a, b.t(), fits_bf16=_powers_of_two(scale_a) and _powers_of_two(scale_b))


def _rows_of_tiles(scale: Tensor, rows: int) -> Tensor:
    return scale if scale.shape[0] == rows else scale.repeat_interleave(BLOCK, dim=0)[:rows]


def _mx(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, profile: NumericProfile) -> Tensor:
    left = expand_tiles(unswizzled(scale_a.float(), *a.shape), (1, MX_BLOCK), *a.shape)
    right = expand_tiles(unswizzled(scale_b.float(), *b.t().shape), (1, MX_BLOCK), *b.t().shape).t()
    if profile.ideal:
        return ideal_product(casts.values_of(a) * left, casts.values_of(b) * right, fits_bf16=True)
    accumulator = profile.accumulator(Operand.FP8, fast=True)
    return exact_matmul(
        casts.values_of(a), casts.values_of(b), accumulator, _formats(a, b), block_scales=(left, right)
    )


def _powers_of_two(scale: Tensor) -> bool:
    return bool((casts.round_to(scale, BF16) == scale).all()) and torch.equal(
        casts.power_of_two_floor(scale), scale
    )


def _formats(a: Tensor, b: Tensor) -> tuple[FloatFormat, FloatFormat]:
    return format_of(a.dtype) or E4M3, format_of(b.dtype) or E4M3
