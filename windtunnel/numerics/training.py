"""FP8 training of linear layers: the public recipes as one differentiable function.

Forward y = x wᵀ, backward dx = g w and dw = gᵀ x, each quantised along its own inner dimension from the high
precision tensors, as the recipes prescribe. ``fp8_linear`` is what an FP8 candidate of a comparison runs in
place of ``torch.nn.functional.linear``; code that quantises by itself calls ``scaled`` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import E4M3, E5M2, FloatFormat
from windtunnel.numerics.gemm import ideal_product
from windtunnel.numerics.profiles import NumericProfile, Operand
from windtunnel.numerics.scaled import chip_block_scaled_mm
from windtunnel.numerics.scaling import (
    ACTIVATION,
    ROW,
    S5000_BLOCK,
    TE_BLOCK,
    TE_CURRENT,
    TENSOR,
    WEIGHT,
    Quantised,
    ScaleRule,
    quantise,
)


class Granularity(Enum):
    """How far one scale reaches."""

    TENSOR = "tensor"
    ROW = "row"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class LinearRecipe:
    """How a linear layer trains in FP8.

    Attributes:
        gradient: format of output gradients; activations and weights are E4M3.
        fast_forward: fast accumulation in the forward product (torchao's default for scaled products).
    """

    name: str
    granularity: Granularity
    rule: ScaleRule
    gradient: FloatFormat
    fast_forward: bool = False


# torchao.float8 "tensorwise" and "rowwise"; E5M2 gradients with per-tensor scales, E4M3 with rows.
TENSORWISE = LinearRecipe("tensorwise", Granularity.TENSOR, TE_CURRENT, E5M2, fast_forward=True)
ROWWISE = LinearRecipe("rowwise", Granularity.ROW, ScaleRule(power_of_two=True), E4M3, fast_forward=True)
# TransformerEngine Float8BlockScaling: E4M3 everywhere, scales that are powers of two.
BLOCKWISE = LinearRecipe("blockwise", Granularity.BLOCK, TE_BLOCK, E4M3)
# MT-TransformerEngine MTFP8BlockScaling: hybrid formats, FP32 scales.
S5000_BLOCKWISE = LinearRecipe("s5000-blockwise", Granularity.BLOCK, S5000_BLOCK, E5M2)
RECIPES = (TENSORWISE, ROWWISE, BLOCKWISE, S5000_BLOCKWISE)


def recipe_named(name: str) -> LinearRecipe:
    """A recipe by its name. Raises KeyError."""
    return {recipe.name: recipe for recipe in RECIPES}[name]


def fp8_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, recipe: LinearRecipe, profile: NumericProfile
) -> Tensor:
    """``torch.nn.functional.linear`` in FP8: x [..., in], weight [out, in]; differentiable.

    Result and gradients have the dtype of ``x`` and ``weight``.

    Raises:
        WindtunnelError: E702 where the chip has no FP8.
    """
    profile.accumulator(Operand.FP8)
    result: Tensor = _Fp8Linear.apply(x, weight, recipe, profile)  # type: ignore[no-untyped-call]
    return result if bias is None else result + bias


class _Fp8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, recipe: LinearRecipe, profile: NumericProfile) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]) if x.numel() else x.reshape(0, x.shape[-1])
        a, b = _left(rows, E4M3, recipe), _weight(weight, recipe)
        wide = _product(a, b, profile, recipe, fast=recipe.fast_forward)
        shareable = recipe.granularity is Granularity.TENSOR
        ctx.save_for_backward(rows, weight)
        ctx.quantised = (
            (a, b) if shareable else (None, b if recipe.granularity is Granularity.BLOCK else None)
        )
        ctx.recipe, ctx.profile, ctx.shape = recipe, profile, x.shape
        return wide.to(x.dtype).reshape(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows, weight = ctx.saved_tensors
        grad = gradients[0].reshape(rows.shape[0], weight.shape[0])
        wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        grad_x, grad_weight = fp8_gradients(
            grad, rows, weight, ctx.recipe, ctx.profile, wanted, ctx.quantised
        )
        return None if grad_x is None else grad_x.reshape(ctx.shape), grad_weight, None, None


def fp8_product(rows: Tensor, weight: Tensor, recipe: LinearRecipe, profile: NumericProfile) -> Tensor:
    """The forward product alone: rows [n, in], weight [out, in]; [n, out] in the dtype of ``rows``."""
    wide = _product(
        _left(rows, E4M3, recipe), _weight(weight, recipe), profile, recipe, fast=recipe.fast_forward
    )
    return wide.to(rows.dtype)


def fp8_gradients(
    grad: Tensor,
    rows: Tensor,
    weight: Tensor,
    recipe: LinearRecipe,
    profile: NumericProfile,
    wanted: tuple[bool, bool] = (True, True),
    kept: tuple[Quantised | None, Quantised | None] = (None, None),
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of rows [n, in] and weight [out, in] from that of the result [n, out].

    ``kept``: rows and weight as the forward pass quantised them, where that can be used again.
    """
    kept_x, kept_weight = kept
    left = _left(grad, recipe.gradient, recipe)
    grad_x = grad_weight = None
    if wanted[0]:
        right = _transposed(kept_weight) if kept_weight is not None else _weight(weight.t(), recipe)
        grad_x = _product(left, right, profile, recipe).to(rows.dtype)
    if wanted[1]:
        whole = recipe.granularity is Granularity.TENSOR
        upper = _transposed(left) if whole else _left(grad.t(), recipe.gradient, recipe)
        lower = _transposed(kept_x) if whole and kept_x is not None else _left(rows.t(), E4M3, recipe)
        grad_weight = _product(upper, lower, profile, recipe).to(weight.dtype)
    return grad_x, grad_weight


def _left(x: Tensor, fmt: FloatFormat, recipe: LinearRecipe) -> Quantised:
    tiles = {Granularity.TENSOR: TENSOR, Granularity.ROW: ROW, Granularity.BLOCK: ACTIVATION}
    return quantise(x.contiguous(), fmt, tiles[recipe.granularity], recipe.rule)


def _weight(x: Tensor, recipe: LinearRecipe) -> Quantised:
    tiles = {Granularity.TENSOR: TENSOR, Granularity.ROW: ROW, Granularity.BLOCK: WEIGHT}
    return quantise(x.contiguous(), E4M3, tiles[recipe.granularity], recipe.rule)


def _transposed(x: Quantised) -> Quantised:
    # Only tiles that are square or whole survive a transposition.
    return Quantised(x.values.t(), x.scale.t(), x.fmt, (x.tile[1], x.tile[0]))


def _product(
    a: Quantised, b: Quantised, profile: NumericProfile, recipe: LinearRecipe, *, fast: bool = False
) -> Tensor:
    """``a @ b.T`` in FP32, both [rows, inner]."""
    if recipe.granularity is Granularity.BLOCK:
        return chip_block_scaled_mm(a, b, profile=profile, out_dtype=torch.float32)
    if profile.ideal:
        wide = ideal_product(a.values, b.values.t(), fits_bf16=True)
    else:
        accumulator = profile.accumulator(Operand.FP8, fast=fast)
        wide = exact_matmul(a.values, b.values.t(), accumulator, (a.fmt, b.fmt))
    return wide.mul_(a.scale * b.scale.t())
