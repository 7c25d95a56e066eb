"""A linear layer in FP8 as one operator: quantise, multiply as the session's chip does; its gradients likewise."""

from __future__ import annotations

from typing import Any

import torch

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.capture.virtual_ops.library import define, differentiate
from windtunnel.numerics.profiles import NumericProfile
from windtunnel.numerics.training import fp8_gradients, fp8_product, recipe_named


def _profile() -> NumericProfile:
    arithmetic = VirtualTensor.state.arithmetic
    assert arithmetic is not None  # operators compute in values mode only
    return arithmetic.profile


def _forward(rows: torch.Tensor, weight: torch.Tensor, recipe: str) -> torch.Tensor:
    return fp8_product(rows, weight, recipe_named(recipe), _profile())


def _backward(
    grad: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, recipe: str
) -> tuple[torch.Tensor, torch.Tensor]:
    grad_rows, grad_weight = fp8_gradients(grad, rows, weight, recipe_named(recipe), _profile())
    assert grad_rows is not None
    assert grad_weight is not None
    return grad_rows, grad_weight


fp8_linear = define(
    "fp8_linear",
    "(Tensor rows, Tensor weight, str recipe) -> Tensor",
    lambda rows, weight, recipe: rows.new_empty(rows.shape[0], weight.shape[0]),
    _forward,
)
fp8_linear_backward = define(
    "fp8_linear_backward",
    "(Tensor grad, Tensor rows, Tensor weight, str recipe) -> (Tensor, Tensor)",
    lambda grad, rows, weight, recipe: (rows.new_empty(rows.shape), weight.new_empty(weight.shape)),
    _backward,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    rows, weight, ctx.recipe = inputs
    ctx.save_for_backward(rows, weight)


def _gradients(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
    rows, weight = ctx.saved_tensors
    return (*fp8_linear_backward(grad, rows, weight, ctx.recipe), None)


differentiate("fp8_linear", _gradients, _setup)
