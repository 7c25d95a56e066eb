"""Negative controls: known defects, injected on purpose, that a comparison must catch.

A comparison that stays silent on these has no say about a candidate; ``require_caught`` refuses to go on.
Each defect is one that happened in the field: a gradient scaled wrongly in one layer, a wrong softmax scale, a
product that forgets the end of its inner dimension, FP8 without scaling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.profiles import NumericProfile
from windtunnel.numerics.training import LinearRecipe, fp8_linear
from windtunnel.results.align_result import ControlResult


class Defect(StrEnum):
    """What is injected."""

    HALVED_GRADIENT = "gradient of one weight halved"
    ATTENTION_SCALE = "attention scores scaled by 1.25"
    SHORT_PRODUCT = "last quarter of the inner dimension left out of one layer"
    UNSCALED_FP8 = "linear layers in FP8 without scaling"


def suite(has_attention: bool) -> tuple[Defect, ...]:
    """The three defects for a model: what cannot be injected into it proves nothing."""
    second = Defect.ATTENTION_SCALE if has_attention else Defect.SHORT_PRODUCT
    return Defect.HALVED_GRADIENT, second, Defect.UNSCALED_FP8


@contextmanager
def injected(defect: Defect, parameters: Mapping[str, Tensor], target: str | None = None) -> Iterator[None]:
    """Run with the defect.

    Args:
        parameters: the model's, by name.
        target: parameter that a defect of one layer strikes; the middle one of the matrices if not given.
    """
    if defect is Defect.HALVED_GRADIENT:
        handle = parameters[target or middle_matrix(parameters)].register_hook(lambda grad: grad * 0.5)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            handle.remove()
    elif defect is Defect.ATTENTION_SCALE:
        with _replaced(("scaled_dot_product_attention",), _scaled_attention):
            yield
    elif defect is Defect.SHORT_PRODUCT:
        struck = parameters[target or middle_matrix(parameters)]
        with _replaced(_PRODUCTS, lambda original: _short(original, struck)):
            yield
    else:
        with _replaced(_PRODUCTS, _unscaled):
            yield


@contextmanager
def fp8_linears(recipe: LinearRecipe, profile: NumericProfile) -> Iterator[None]:
    """Run with every ``torch.nn.functional.linear`` of two or more dimensions in FP8 by a recipe."""

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return fp8_linear(x, weight, bias, recipe, profile)

    with _replaced(("linear",), lambda _: linear):
        yield


def middle_matrix(parameters: Mapping[str, Tensor]) -> str:
    """The matrix in the middle of the model: neither an embedding nor the head."""
    matrices = [name for name, parameter in parameters.items() if parameter.dim() >= 2]
    if not matrices:
        raise WindtunnelError(
            "E715",
            "the model has no weight matrix to inject a defect into",
            hint="compare a model with linear layers",
            values={"parameters": len(parameters)},
        )
    return matrices[len(matrices) // 2]


def require_caught(results: Sequence[ControlResult]) -> None:
    """Refuse a report whose three controls were not all run and caught. Raises E715."""
    run = {result.defect for result in results}
    suites = [suite(has_attention) for has_attention in (True, False)]
    missing = min(([str(d) for d in wanted if d not in run] for wanted in suites), key=len)
    silent = [result.defect for result in results if not result.caught]
    if missing or silent:
        raise WindtunnelError(
            "E715",
            "the comparison did not catch all of its negative controls, so its verdict is worth nothing",
            hint="compare at more checkpoints or with a larger batch",
            values={"not caught": ", ".join(silent) or "-", "not run": ", ".join(missing) or "-"},
        )


_PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d")


@contextmanager
def _replaced(names: Sequence[str], make: Callable[[Any], Any]) -> Iterator[None]:
    functional = torch.nn.functional
    originals = {name: getattr(functional, name) for name in names}
    for name, original in originals.items():
        setattr(functional, name, make(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(functional, name, original)


def _scaled_attention(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def attention(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return original(query * 1.25, *args, **kwargs)

    return attention


def _short(original: Callable[..., Tensor], struck: Tensor) -> Callable[..., Tensor]:
    def product(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if weight is struck:
            kept = torch.ones_like(weight)
            kept[:, weight.shape[1] - max(1, weight.shape[1] // 4) :] = 0
            weight = weight * kept
        return original(x, weight, *args, **kwargs)

    return product


def _unscaled(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        rounded: tuple[Tensor, Tensor] = _Round.apply(x), _Round.apply(weight)  # type: ignore[no-untyped-call]
        result: Tensor = _RoundGradient.apply(original(*rounded, bias, *args, **kwargs))  # type: ignore[no-untyped-call]
        return result

    return product


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.to(torch.float8_e4m3fn).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _RoundGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].to(torch.float8_e5m2).to(gradients[0].dtype)
