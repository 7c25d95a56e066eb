"""The precision of a whole run, whatever the script says: what a candidate of a comparison computes in.

BF16 is autocast around everything but backward passes and optimizers. FP8 is that plus every linear layer and
grouped product of experts by a public FP8 recipe; layers whose sides are no multiples of 16, which no card
multiplies in FP8, stay in BF16. What this is not: a chip's arithmetic (``arithmetic.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from itertools import pairwise
from typing import Any

import torch
from torch.optim import optimizer as torch_optimizer

from windtunnel.capture.arithmetic import Arithmetic
from windtunnel.capture.backend import BACKEND
from windtunnel.capture.state import State
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.numerics.profiles import Operand, profile_of
from windtunnel.specs.schema import Chip, Vendor

MULTIPLE = 16  # sides of FP8 operands, as torch._scaled_mm demands


class Precision(StrEnum):
    """What may stand behind a chip's name: ``mtt-s5000:fp8``."""

    AS_WRITTEN = "as-written"
    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"  # the recipe of the chip's own training library
    FP8_TENSORWISE = "fp8-tensorwise"
    FP8_ROWWISE = "fp8-rowwise"
    FP8_BLOCKWISE = "fp8-blockwise"
    FP8_S5000 = "fp8-s5000-blockwise"


_OPERANDS = {Precision.TF32: Operand.TF32, Precision.BF16: Operand.BF16, Precision.FP16: Operand.FP16}


def fp8_recipe(chip: Chip, precision: Precision) -> str:
    """Name of the FP8 recipe of linear layers; empty where they are not in FP8."""
    if precision is Precision.FP8:
        return "s5000-blockwise" if chip.vendor is Vendor.MOORE_THREADS else "blockwise"
    head, _, recipe = precision.partition("-")
    return recipe if head == "fp8" else ""


def operand_for(chip: Chip, precision: Precision) -> Operand | None:
    """What linear layers multiply; None: FP32, or whatever the script says."""
    return Operand.FP8 if fp8_recipe(chip, precision) else _OPERANDS.get(precision)


def check(chip: Chip, precision: Precision) -> None:
    """Raise E702 where the chip lacks the precision, E701 where its arithmetic is not known."""
    profile = profile_of(chip)
    if fp8_recipe(chip, precision):
        profile.accumulator(Operand.FP8)
        profile.accumulator(Operand.BF16)
    elif precision in _OPERANDS:
        profile.accumulator(_OPERANDS[precision])


def become(state: State, chip: Chip, precision: Precision, *, ideal: bool = False) -> None:
    """Compute as ``chip`` does from now on, in ``precision``; for good: the process is given over to it.

    Args:
        ideal: exact products and FP32 sums instead of the chip's accumulators.

    Raises:
        WindtunnelError: E702, the chip lacks the precision.
    """
    check(chip, precision)
    if state.arithmetic is None:
        raise WindtunnelError(
            "E719", "precision is a matter of values, and this card has none", hint="record with values=True"
        )
    state.chip = chip
    if state.told_tf32 is None:
        state.allow_tf32 = precision is Precision.TF32
    state.arithmetic = Arithmetic(state)
    if ideal:
        state.arithmetic.profile = state.arithmetic.profile.idealised()
    for overload, kernel in state.arithmetic.kernels().items():
        state.dispatch.arithmetic[id(overload)] = kernel
    _lower_linears(fp8_recipe(chip, precision))
    low = precision in (Precision.BF16, Precision.FP16) or fp8_recipe(chip, precision) != ""
    _autocast(low, torch.float16 if precision is Precision.FP16 else torch.bfloat16)


_functional: Any = torch.nn.functional
_plain: dict[str, Any] = {}
_hooks: list[Any] = []


def _autocast(on: bool, dtype: torch.dtype) -> None:
    """Lower precision from here to the end of the process, but in backward passes and optimizers."""
    for handle in _hooks:
        handle.remove()
    _hooks.clear()
    backward = _plain.setdefault("backward", torch.autograd.backward)
    torch.autograd.backward = backward
    torch.set_autocast_enabled(BACKEND, on)
    torch.set_autocast_cache_enabled(not on)  # it would outlive the weights
    if not on:
        return
    torch.set_autocast_dtype(BACKEND, dtype)

    def outside(*args: Any, **kwargs: Any) -> Any:
        torch.set_autocast_enabled(BACKEND, False)
        try:
            return backward(*args, **kwargs)
        finally:
            torch.set_autocast_enabled(BACKEND, True)

    torch.autograd.backward = outside
    _hooks.append(
        torch_optimizer.register_optimizer_step_pre_hook(
            lambda *_: torch.set_autocast_enabled(BACKEND, False)
        )
    )
    _hooks.append(
        torch_optimizer.register_optimizer_step_post_hook(
            lambda *_: torch.set_autocast_enabled(BACKEND, True)
        )
    )


def _lower_linears(recipe: str) -> None:
    """Route linear layers and grouped products through the recipe; an empty one puts PyTorch's back."""
    linear = _plain.setdefault("linear", _functional.linear)
    grouped = _plain.setdefault("grouped", _functional.grouped_mm)
    bare = _plain.setdefault("bare", torch._grouped_mm)
    _functional.linear = _fp8_linear(linear, recipe) if recipe else linear
    _functional.grouped_mm = _fp8_grouped(grouped, recipe) if recipe else grouped
    torch._grouped_mm = _fp8_grouped(bare, recipe) if recipe else bare


def _fp8_linear(plain: Callable[..., torch.Tensor], recipe: str) -> Callable[..., torch.Tensor]:
    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if not _takes_fp8(x, weight.shape):
            return plain(x, weight, bias)
        out = _product(x.reshape(-1, x.shape[-1]), weight, recipe).reshape(*x.shape[:-1], weight.shape[0])
        return out if bias is None else out + bias.to(out.dtype)

    return linear


def _fp8_grouped(plain: Callable[..., torch.Tensor], recipe: str) -> Callable[..., torch.Tensor]:
    def grouped(a: torch.Tensor, b: torch.Tensor, offs: Any = None, **rest: Any) -> torch.Tensor:
        by_rows = a.dim() == 2 and b.dim() == 3 and offs is not None and rest.get("bias") is None
        if not by_rows or not _takes_fp8(a, b.shape[1:]):
            return plain(a, b, offs=offs, **rest)
        ends = [0, *offs.tolist()]
        parts = [_product(a[first:last], b[e].t(), recipe) for e, (first, last) in enumerate(pairwise(ends))]
        parts.append(parts[0].new_zeros(a.shape[0] - ends[-1], b.shape[2]))
        return torch.cat(parts)

    return grouped


def _takes_fp8(x: torch.Tensor, sides: tuple[int, ...]) -> bool:
    if not isinstance(x, VirtualTensor) or not torch.is_autocast_enabled(BACKEND):
        return False
    return x.numel() > 0 and len(sides) == 2 and not any(side % MULTIPLE for side in sides)


def _product(rows: torch.Tensor, weight: torch.Tensor, recipe: str) -> torch.Tensor:
    from windtunnel.capture.virtual_ops.fp8_linear import fp8_linear

    dtype = torch.get_autocast_dtype(BACKEND)
    out: torch.Tensor = fp8_linear(rows.to(dtype), weight, recipe)
    return out
