"""Block-scaled FP4 products (NVFP4 and MXFP4) as Blackwell's tensor cores compute them, in PyTorch.

Slower than the FP8 kernels and rarely needed; exact for the instruction, after MMA-Sim (arXiv 2511.10909).
"""

from __future__ import annotations

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.accumulators import Accumulator, GroupedAccumulator
from windtunnel.numerics.exact_torch import fit_register, power_of_two
from windtunnel.numerics.formats import E2M1
from windtunnel.numerics.gemm import ideal_product
from windtunnel.numerics.profiles import NumericProfile
from windtunnel.numerics.scaling import Quantised

_REGISTER = Accumulator(25, 64, -139)  # FP32, truncated; only its rounding is used
_E4M3_SUBNORMAL = -6
_E8M0_SMALLEST = -127


def chip_fp4_mm(
    a: Quantised,
    b: Quantised,
    *,
    profile: NumericProfile,
    whole: Tensor | float = 1.0,
    out_dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """``a @ b.T`` of two FP4 tensors [M, K] and [N, K], blocks of 16 (E4M3 scales) or 32 (E8M0) along K.

    Args:
        whole: the product of both tensors' FP32 scales (NVFP4), applied to the FP32 sum.

    Raises:
        WindtunnelError: E702 no FP4 on the chip, E704 shapes that do not fit, E707 other formats or blocks.
    """
    if profile.fp4 is None:
        raise WindtunnelError(
            "E702",
            f"{profile.name} has no fp4 matrix product",
            hint=f"use one of the precisions it has: {', '.join(profile.accumulators)}",
            values={"profile": profile.name, "precision": "fp4"},
        )
    if a.fmt is not E2M1 or b.fmt is not E2M1 or a.tile != b.tile or a.tile not in ((1, 16), (1, 32)):
        raise WindtunnelError(
            "E707",
            "an FP4 product takes two E2M1 tensors with blocks of 16 or of 32 along K",
            hint="quantise both with quantise_nvfp4, or both with quantise_mx and E2M1",
            values={"a": f"{a.fmt.name} {a.tile}", "b": f"{b.fmt.name} {b.tile}"},
        )
    if a.values.shape[1] != b.values.shape[1]:
        raise WindtunnelError(
            "E704",
            "these two tensors do not multiply: inner dimensions differ",
            hint="both operands are quantised along K, the second as [N, K]",
            values={"a": tuple(a.values.shape), "b": tuple(b.values.shape)},
        )
    if profile.ideal:
        wide = ideal_product(a.dequantised(), b.dequantised().t(), fits_bf16=a.tile[1] == 32)
    else:
        wide = fp4_exact(a, b, profile.fp4)
    return (wide * whole).to(out_dtype)


def fp4_exact(
    a: Quantised, b: Quantised, accumulator: GroupedAccumulator, start: Tensor | None = None
) -> Tensor:
    """``start + a @ b.T`` in FP32, as the tensor core sums it; NaN scales make NaN."""
    rows, depth = a.values.shape
    register = torch.zeros(rows, b.values.shape[0]) if start is None else start.float()
    block = a.tile[1]
    lowest = _E4M3_SUBNORMAL if block == 16 else _E8M0_SMALLEST
    for first in range(0, depth, accumulator.terms):
        sums, shifts = [], []
        for at in range(first, min(first + accumulator.terms, depth), accumulator.group):
            part = slice(at, min(at + accumulator.group, depth))
            left, right = a.values[:, part].double(), b.values[:, part].double()
            significand_a, exponent_a = _split(a.scale[:, at // block], lowest)
            significand_b, exponent_b = _split(b.scale[:, at // block], lowest)
            significand = significand_a[:, None] * significand_b[None, :]
            exponent = exponent_a[:, None] + exponent_b[None, :]
            idle = ((left != 0).double() @ (right != 0).double().t() == 0) | (significand == 0)
            sums.append((left @ right.t()) * significand * power_of_two(exponent))
            shifts.append(exponent.masked_fill(idle, accumulator.zero_exponent))
        register = _step(sums, shifts, register, accumulator)
    return register


def _step(
    sums: list[Tensor], shifts: list[Tensor], register: Tensor, accumulator: GroupedAccumulator
) -> Tensor:
    exponent = ((register.view(torch.int32) >> 23) & 0xFF) - 127
    own = torch.where(register == 0, accumulator.zero_exponent, exponent.clamp(min=-126))
    shift = torch.stack([*shifts, own.long()]).amax(0) - accumulator.fraction_bits
    unit = power_of_two(shift)
    aligned = torch.stack([(term / unit).trunc() for term in (*sums, register.double())]).sum(0)
    return fit_register(aligned * unit, _REGISTER)


def _split(scale: Tensor, lowest: int) -> tuple[Tensor, Tensor]:
    found = torch.frexp(scale.double()).exponent - 1
    exponent = torch.where(scale == 0, lowest, found).clamp(min=lowest).long()
    return scale.double() / power_of_two(exponent), exponent
