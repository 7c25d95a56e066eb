"""What a chip's ``torch._scaled_mm`` takes and refuses; needs metadata only, no values.

NVIDIA: aten/src/ATen/native/cuda/ScaledBlas.cpp. Moore Threads: torch_musa csrc/aten/ops/Matmul.cpp (any pair
of FP8 types; FP32 scales per tensor or per row).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NoReturn

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.formats import FP8_DTYPES
from windtunnel.numerics.profiles import NumericProfile, Operand, ScaleRecipe

BLOCK = 128
MX_BLOCK = 32


class ScalingType(Enum):
    """``torch.nn.functional.ScalingType``, by the integers that ``aten::_scaled_mm_v2`` gets."""

    TENSOR = 0
    ROW = 1
    BLOCK_1X16 = 2
    BLOCK_1X32 = 3
    BLOCK_1X128 = 4
    BLOCK_128X128 = 5


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
    """The recipe of ``_scaled_mm`` that these arguments ask for.

    Raises:
        WindtunnelError: E702 no FP8 on the chip, E706 operands, bias or layout that it refuses, E707 scales
            that it does not take.
    """
    check_operands(a, b, profile)
    if bias is not None:
        _check_bias(bias, b, out_dtype or a.dtype, profile)
    found = _recipe(a, b, scale_a, scale_b)
    if found is None or found not in profile.scale_recipes:
        values = {
            "scale_a": f"{tuple(scale_a.shape)} {scale_a.dtype} strides {scale_a.stride()}",
            "scale_b": f"{tuple(scale_b.shape)} {scale_b.dtype} strides {scale_b.stride()}",
            "a": tuple(a.shape),
            "b": tuple(b.shape),
        }
        refuse_scales(profile, "scales fit no recipe" if found is None else f"scales are {found}", values)
    return found


def check_operands(a: Tensor, b: Tensor, profile: NumericProfile) -> None:
    """Dtypes, shapes and layout of the operands alone. Raises E702, E706."""
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


def refuse_scales(profile: NumericProfile, why: str, values: Mapping[str, object]) -> NoReturn:
    """Raise E707."""
    takes = ", ".join(sorted(profile.scale_recipes)) or "none"
    raise WindtunnelError(
        "E707",
        f"_scaled_mm on {profile.name} does not take these scales: {why}",
        hint=f"recipes it takes: {takes}; block-scaled products run through a kernel library",
        values=values,
    )


def swizzled_size(rows: int, depth: int) -> int:
    """Elements of the E8M0 scales of a [rows, depth] operand in the layout that cuBLAS reads."""
    return -(-rows // 128) * 128 * (-(-depth // (4 * MX_BLOCK)) * 4)


def _recipe(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor) -> ScaleRecipe | None:
    rows, depth, columns = a.shape[0], a.shape[1], b.shape[1]
    if scale_a.dtype is scale_b.dtype is torch.float8_e8m0fnu:
        sizes = (swizzled_size(rows, depth), swizzled_size(columns, depth))
        return ScaleRecipe.MX_1X32 if (scale_a.numel(), scale_b.numel()) == sizes else None
    if not scale_a.dtype is scale_b.dtype is torch.float32:
        return None
    if scale_a.numel() == 1 and scale_b.numel() == 1:
        return ScaleRecipe.TENSOR
    shapes = (tuple(scale_a.shape), tuple(scale_b.shape))
    if shapes == ((rows, 1), (1, columns)) and scale_a.is_contiguous() and scale_b.t().is_contiguous():
        return ScaleRecipe.ROW
    left, right = block_kind(scale_a, rows, depth), block_kind(scale_b.t(), columns, depth)
    both_square = left is right is ScalingType.BLOCK_128X128
    return ScaleRecipe.BLOCK_1X128 if left and right and not both_square else None


def block_kind(scale: Tensor, rows: int, depth: int) -> ScalingType | None:
    """Which block scaling the scale of a [rows, depth] operand is laid out for; None for neither.

    1×128: [rows, blocks of K], outer dimension contiguous. 128×128: inner dimension contiguous.
    """
    blocks = -(-depth // BLOCK)
    if scale.dim() != 2 or scale.shape[1] != blocks:
        return None
    if scale.shape[0] == rows and _strides(scale, (1, rows)):
        return ScalingType.BLOCK_1X128
    if scale.shape[0] == -(-rows // BLOCK) and _strides(scale, (blocks, 1)):
        return ScalingType.BLOCK_128X128
    return None


def _strides(scale: Tensor, wanted: tuple[int, int]) -> bool:
    return all(size <= 1 or stride == want for size, stride, want in zip(scale.shape, scale.stride(), wanted))


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
