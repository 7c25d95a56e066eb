"""Scaled FP8 products: ``torch._scaled_mm`` with its refusals, and the block-scaled GEMM of kernel libraries.

Never ``torch._scaled_mm`` itself on the CPU: its reference kernel is 1,000 times slower than FP32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics import casts
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import BF16, E4M3, FP8_DTYPES, FloatFormat, format_of
from windtunnel.numerics.gemm import ideal_product, narrow_product
from windtunnel.numerics.profiles import NumericProfile, Operand, ScaleRecipe
from windtunnel.numerics.scaling import Quantised, expand_tiles

BLOCK = 128
MX_BLOCK = 32


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
    [K/128, N] or [K/128, N/128]); or E8M0 blocks of 32 along K, as plain [M, K/32] and [K/32, N]. What the
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
            _refuse_scales(profile, f"tile of {side} is {operand.tile}, not 1x128 or 128x128", {})
    if a.values.shape[1] != b.values.shape[1]:
        raise WindtunnelError(
            "E704",
            "these two tensors do not multiply: inner dimensions differ",
            hint="both operands of a block-scaled product are quantised along K, the second as [N, K]",
            values={"a": tuple(a.values.shape), "b": tuple(b.values.shape)},
        )
    wide = _blocks(a.values, b.values, a.scale, b.scale, (a.fmt, b.fmt), profile)
    return wide.to(out_dtype)


def check_scaled_mm(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    *,
    profile: NumericProfile,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> ScaleRecipe:
    """What ``_scaled_mm`` of the chip's PyTorch checks before it computes; needs no data, only metadata.

    NVIDIA: aten/src/ATen/native/cuda/ScaledBlas.cpp. Moore Threads: torch_musa csrc/aten/ops/Matmul.cpp
    (any pair of FP8 types; FP32 scales per tensor or per row).
    """
    profile.accumulator(Operand.FP8)
    if a.dtype not in FP8_DTYPES or b.dtype not in FP8_DTYPES:
        _refuse_operands(profile, "both operands must be float8", a, b)
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        _refuse_operands(profile, "operands must be [M, K] and [K, N]", a, b)
    if a.shape[1] % 16 or b.shape[1] % 16:
        _refuse_operands(profile, "K and N must be multiples of 16", a, b)
    if profile.fp8_rules.refuses_two_e5m2 and a.dtype is b.dtype is torch.float8_e5m2:
        _refuse_operands(profile, "two E5M2 operands", a, b)
    if profile.fp8_rules.column_major_b and not (_row_major(a) and _row_major(b.t())):
        _refuse_operands(profile, "a must be row-major and b column-major (pass weight.t())", a, b)
    if bias is not None:
        _check_bias(bias, b, out_dtype or a.dtype, profile)
    return _recipe(a, b, scale_a, scale_b, profile)


def _recipe(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, profile: NumericProfile) -> ScaleRecipe:
    rows, depth, columns = a.shape[0], a.shape[1], b.shape[1]
    blocks = -(-depth // BLOCK)
    shapes = (tuple(scale_a.shape), tuple(scale_b.shape))
    found: ScaleRecipe | None = None
    if scale_a.dtype is torch.float8_e8m0fnu and scale_b.dtype is torch.float8_e8m0fnu:
        fits = shapes == ((rows, -(-depth // MX_BLOCK)), (-(-depth // MX_BLOCK), columns))
        found = ScaleRecipe.MX_1X32 if fits else None
    elif scale_a.dtype is torch.float32 and scale_b.dtype is torch.float32:
        left_block = shapes[0] in ((rows, blocks), (-(-rows // BLOCK), blocks))
        right_block = shapes[1] in ((blocks, columns), (blocks, -(-columns // BLOCK)))
        if scale_a.numel() == 1 and scale_b.numel() == 1:
            found = ScaleRecipe.TENSOR
        elif shapes == ((rows, 1), (1, columns)):
            found = ScaleRecipe.ROW
        elif left_block and right_block:
            found = ScaleRecipe.BLOCK_1X128
    values = {
        "scale_a": f"{shapes[0]} {scale_a.dtype}",
        "scale_b": f"{shapes[1]} {scale_b.dtype}",
        "a": tuple(a.shape),
        "b": tuple(b.shape),
    }
    if found is None:
        _refuse_scales(profile, "scales fit no recipe", values)
    if found not in profile.scale_recipes:
        _refuse_scales(profile, f"scales are {found}", values)
    return found


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
    rows, depth = a.shape
    left = expand_tiles(scale_a.float(), (1, MX_BLOCK), rows, depth)
    right = expand_tiles(scale_b.float(), (MX_BLOCK, 1), depth, b.shape[1])
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


def _row_major(x: Tensor) -> bool:
    return x.stride(1) == 1 or x.shape[1] == 1


def _check_bias(bias: Tensor, b: Tensor, out_dtype: torch.dtype, profile: NumericProfile) -> None:
    wanted = torch.float16 if out_dtype is torch.float16 else torch.bfloat16
    allowed = {wanted, torch.float32} if out_dtype is torch.float32 else {wanted}
    if out_dtype in FP8_DTYPES:
        allowed = {torch.bfloat16, torch.float16}
    if profile.fp8_rules.refuses_fp32_bias and out_dtype is torch.float32:
        allowed = set()
    if bias.numel() != b.shape[1] or bias.dtype not in allowed:
        names = ", ".join(sorted(str(dtype) for dtype in allowed)) or "none"
        raise WindtunnelError(
            "E706",
            f"_scaled_mm on {profile.name} refuses this bias",
            hint=f"for {out_dtype} results the bias may be: {names}; one element per column",
            values={"bias": f"{tuple(bias.shape)} {bias.dtype}", "columns": b.shape[1]},
        )


def _refuse_operands(profile: NumericProfile, why: str, a: Tensor, b: Tensor) -> NoReturn:
    raise WindtunnelError(
        "E706",
        f"_scaled_mm on {profile.name} refuses these operands: {why}",
        hint="pad K and N to multiples of 16, and pass the second operand as weight.t()",
        values={
            "a": f"{tuple(a.shape)} {a.dtype} strides {a.stride()}",
            "b": f"{tuple(b.shape)} {b.dtype} strides {b.stride()}",
        },
    )


def _refuse_scales(profile: NumericProfile, why: str, values: Mapping[str, object]) -> NoReturn:
    takes = ", ".join(sorted(profile.scale_recipes)) or "none"
    raise WindtunnelError(
        "E707",
        f"_scaled_mm on {profile.name} does not take these scales: {why}",
        hint=f"recipes it takes: {takes}; block-scaled products run through a kernel library",
        values=values,
    )
