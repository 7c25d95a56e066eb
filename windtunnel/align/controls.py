"""Negative controls: known defects, injected on purpose, that a comparison must catch.

A comparison that stays silent on these has no say about a candidate; ``require_caught`` refuses to go on.
Each defect is one that happened in the field: a gradient scaled wrongly in one layer, a wrong softmax scale,
FP8 without scaling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics import casts
from windtunnel.numerics.formats import E4M3, E5M2
from windtunnel.numerics.profiles import NumericProfile
from windtunnel.numerics.training import LinearRecipe, fp8_linear


class Defect(StrEnum):
    """What is injected."""

    HALVED_GRADIENT = "gradient of one weight halved"
    ATTENTION_SCALE = "attention scores scaled by 1.25"
    UNSCALED_FP8 = "linear layers in FP8 without scaling"


@dataclass(frozen=True, slots=True)
class ControlResult:
    """Whether a defect was caught, and by which tensors."""

    defect: Defect
    caught: bool
    flagged: tuple[str, ...]


@contextmanager
def injected(defect: Defect, parameters: Mapping[str, Tensor], target: str | None = None) -> Iterator[None]:
    """Run with the defect.

    Args:
        parameters: the model's, by name.
        target: parameter whose gradient is halved; the middle one of the matrices if not given.
    """
    if defect is Defect.HALVED_GRADIENT:
        handle = parameters[target or middle_matrix(parameters)].register_hook(lambda grad: grad * 0.5)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            handle.remove()
    elif defect is Defect.ATTENTION_SCALE:
        with _replaced("scaled_dot_product_attention", _scaled_attention):
            yield
    else:
        with _replaced("linear", lambda _: _unscaled_linear):
            yield


@contextmanager
def fp8_linears(recipe: LinearRecipe, profile: NumericProfile) -> Iterator[None]:
    """Run with every ``torch.nn.functional.linear`` of two or more dimensions in FP8 by a recipe."""

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return fp8_linear(x, weight, bias, recipe, profile)

    with _replaced("linear", lambda _: linear):
        yield


def middle_matrix(parameters: Mapping[str, Tensor]) -> str:
    """The matrix in the middle of the model: neither an embedding nor the head."""
    matrices = [name for name, parameter in parameters.items() if parameter.dim() == 2]
    if not matrices:
        raise WindtunnelError(
            "E715",
            "the model has no weight matrix to inject a defect into",
            hint="compare a model with linear layers",
            values={"parameters": len(parameters)},
        )
    return matrices[len(matrices) // 2]


def require_caught(results: Sequence[ControlResult]) -> None:
    """Refuse a report whose controls were not all run and caught. Raises E715."""
    missing = [str(defect) for defect in Defect if defect not in {result.defect for result in results}]
    silent = [str(result.defect) for result in results if not result.caught]
    if missing or silent:
        raise WindtunnelError(
            "E715",
            "the comparison did not catch all of its negative controls, so its verdict is worth nothing",
            hint="compare at more checkpoints or with a larger batch",
            values={"not caught": ", ".join(silent) or "-", "not run": ", ".join(missing) or "-"},
        )


@contextmanager
def _replaced(name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    functional = torch.nn.functional
    original = getattr(functional, name)
    setattr(functional, name, make(original))
    try:
        yield
    finally:
        setattr(functional, name, original)


def _scaled_attention(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def attention(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return original(query * 1.25, *args, **kwargs)

    return attention


def _unscaled_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = _Unscaled.apply(x, weight)  # type: ignore[no-untyped-call]
    return result if bias is None else result + bias


class _Unscaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        a, b = casts.round_to(x, E4M3), casts.round_to(weight, E4M3)
        ctx.save_for_backward(a, b)
        return (a @ b.t()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        grad = casts.round_to(gradients[0], E5M2)
        flat = grad.reshape(-1, grad.shape[-1])
        grad_weight = flat.t() @ a.reshape(-1, a.shape[-1])
        return (grad @ b).to(gradients[0].dtype), grad_weight.to(gradients[0].dtype)
