"""The other doors to scaled products: ``torch.nn.functional.scaled_mm`` and the grouped one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windtunnel.numerics.formats import FP8_DTYPES
from windtunnel.numerics.gemm import narrow_product
from windtunnel.numerics.grouped import group_spans
from windtunnel.numerics.profiles import NumericProfile, Operand, ScaleRecipe
from windtunnel.numerics.scaled import chip_scaled_mm
from windtunnel.numerics.scaled_checks import ScalingType, check_operands, refuse_scales

NO_SWIZZLE = 0
_BLOCKS_OF_128 = (ScalingType.BLOCK_1X128, ScalingType.BLOCK_128X128)


def chip_scaled_mm_v2(
    a: Tensor,
    b: Tensor,
    scale_a: Sequence[Tensor],
    recipe_a: Sequence[int],
    swizzle_a: Sequence[int],
    scale_b: Sequence[Tensor],
    recipe_b: Sequence[int],
    swizzle_b: Sequence[int],
    *,
    profile: NumericProfile,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    """``aten::_scaled_mm_v2``: as ``chip_scaled_mm``, with the recipe named instead of guessed from shapes.

    The one-scale recipes are described here; the scales of b for 1×128 come as [N, K/128].

    Raises:
        WindtunnelError: as ``chip_scaled_mm``; E707 also for recipes with two scales (NVFP4).
    """
    kinds = tuple(
        _one(recipe, scale, profile) for recipe, scale in ((recipe_a, scale_a), (recipe_b, scale_b))
    )
    left, right = scale_a[0], scale_b[0]
    named = {"recipe_a": kinds[0].name, "recipe_b": kinds[1].name}
    if kinds[0] in _BLOCKS_OF_128 and kinds[1] in _BLOCKS_OF_128:
        left, right = _oriented(left, kinds[0], a.shape[1]), _oriented(right, kinds[1], b.shape[0]).t()
    elif kinds[0] is not kinds[1]:
        refuse_scales(profile, "the two recipes do not go together", named)
    elif kinds[0] is ScalingType.ROW:
        left, right = left.reshape(-1, 1), right.reshape(1, -1)
    elif kinds[0] is ScalingType.BLOCK_1X32 and NO_SWIZZLE in (*swizzle_a[:1], *swizzle_b[:1]):
        refuse_scales(profile, "E8M0 scales must be swizzled (SWIZZLE_32_4_4)", named)
    return chip_scaled_mm(
        a,
        b,
        left,
        right,
        profile=profile,
        bias=bias,
        out_dtype=out_dtype or torch.bfloat16,
        use_fast_accum=use_fast_accum,
    )


def chip_scaled_grouped_mm(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    offsets: Tensor | None = None,
    *,
    profile: NumericProfile,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    """``aten::_scaled_grouped_mm`` with one scale per row of each group, BF16 result.

    | a | b | scale_a | scale_b | result |
    | --- | --- | --- | --- | --- |
    | [T, K] | [G, K, N] | [T] | [G, N] | [T, N] |
    | [G, M, K] | [K, T] | [G, M] | [T] | [M, T] |
    | [M, T] | [T, N] | [G × M] | [G × N] | [G, M, N] |
    | [G, M, K] | [G, K, N] | [G, M] | [G, N] | [G, M, N] |

    Raises:
        WindtunnelError: E702, E705 offsets, E706 operands that are not FP8, E707 scales of another size.
    """
    profile.accumulator(Operand.FP8)
    if a.dtype not in FP8_DTYPES or b.dtype not in FP8_DTYPES:
        check_operands(a, b, profile)
    spans = group_spans(a, b, offsets)
    groups = len(spans)
    rows, columns = a.shape[-2], b.shape[-1]
    ragged_rows, ragged_columns = b.dim() == 3 and a.dim() == 2, a.dim() == 3 and b.dim() == 2
    sizes = (rows if ragged_rows else groups * rows, columns if ragged_columns else groups * columns)
    if (scale_a.numel(), scale_b.numel()) != sizes or ScaleRecipe.ROW not in profile.scale_recipes:
        values = {"scale_a": tuple(scale_a.shape), "scale_b": tuple(scale_b.shape), "elements wanted": sizes}
        refuse_scales(profile, "a grouped product takes one FP32 scale per row of each group", values)
    left = scale_a.float().reshape(-1) if ragged_rows else scale_a.float().reshape(groups, rows)
    right = scale_b.float().reshape(-1) if ragged_columns else scale_b.float().reshape(groups, columns)

    def product(x: Tensor, y: Tensor, x_scale: Tensor, y_scale: Tensor) -> Tensor:
        wide = narrow_product(x, y, Operand.FP8, profile, fast=use_fast_accum)
        return (wide * (x_scale[:, None] * y_scale[None, :])).to(dtype)

    dtype = out_dtype or torch.bfloat16
    if ragged_rows:
        out = torch.zeros(rows, columns, dtype=dtype)
        for group, (first, last) in enumerate(spans):
            out[first:last] = product(a[first:last], b[group], left[first:last], right[group])
        return out
    if ragged_columns:
        out = torch.zeros(rows, columns, dtype=dtype)
        for group, (first, last) in enumerate(spans):
            out[:, first:last] = product(a[group], b[:, first:last], left[group], right[first:last])
        return out
    parts = [
        product(a[group], b[group], left[group], right[group])
        if a.dim() == 3
        else product(a[:, first:last], b[first:last], left[group], right[group])
        for group, (first, last) in enumerate(spans)
    ]
    return torch.stack(parts) if parts else torch.zeros(0, rows, columns, dtype=dtype)


def _one(recipe: Sequence[int], scale: Sequence[Tensor], profile: NumericProfile) -> ScalingType:
    if len(recipe) != 1 or len(scale) != 1 or recipe[0] not in {kind.value for kind in ScalingType}:
        refuse_scales(profile, "recipes with two scales", {"recipe": list(recipe), "scales": len(scale)})
    return ScalingType(recipe[0])


def _oriented(scale: Tensor, kind: ScalingType, depth: int) -> Tensor:
    """[blocks of rows, blocks of K] from v2's layouts: 128×128 comes K first, padded to 4 blocks of K."""
    if kind is ScalingType.BLOCK_1X128:
        return scale
    blocks = -(-depth // 128)
    return scale[:blocks].t().contiguous()
