"""FP32 results of matrix products of narrow operands: the one place that picks exact or ideal arithmetic.

Callers (``matmul``, ``scaled``, ``attention``, ``convolution``) bring operands in their own dtype and
round the FP32 result to theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from windtunnel.numerics import casts
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import BF16, E4M3, FP16, TF32, FloatFormat, format_of
from windtunnel.numerics.profiles import NumericProfile, Operand

_FORMATS = {Operand.FP16: FP16, Operand.BF16: BF16, Operand.TF32: TF32}


def narrow_product(
    a: Tensor,
    b: Tensor,
    operand: Operand,
    profile: NumericProfile,
    *,
    fast: bool = False,
    fp16_register: bool = False,
) -> Tensor:
    """``a @ b`` on the chip's tensor cores, as the FP32 value that its epilogue reads.

    Args:
        a, b: [M, K] and [K, N], or [batch, M, K] and [batch, K, N]; FP8, FP16, BF16, or FP32 to be read
            as TF32.
        fast: FP8 without promotion (``use_fast_accum``).
        fp16_register: let the register be FP16 (``allow_fp16_accumulation``).

    Raises:
        WindtunnelError: E702 where the chip cannot multiply ``operand``.
    """
    accumulator = profile.accumulator(operand, fast=fast)
    accumulator = accumulator.with_fp16_register() if fp16_register else accumulator
    formats = (_format(a, operand), _format(b, operand))
    left, right = operand_values(a, operand), operand_values(b, operand)
    if profile.ideal:
        return ideal_product(left, right, fits_bf16=operand in (Operand.FP8, Operand.BF16))
    return exact_matmul(left, right, accumulator, formats)


def operand_values(x: Tensor, operand: Operand) -> Tensor:
    """FP32 values as the tensor core reads them: FP32 given as TF32 loses its low 13 bits."""
    return casts.truncate_to_tf32(x) if operand is Operand.TF32 else casts.values_of(x)


def ideal_product(a: Tensor, b: Tensor, *, fits_bf16: bool) -> Tensor:
    """Exact products summed in FP32 in the order of the CPU's library; 2-D or batched.

    ``fits_bf16``: the values are BF16 values, so that the CPU's BF16 units, where it has them, give the
    same products in a fraction of the time.
    """
    with cpu_precision("bf16" if fits_bf16 else "ieee"):
        return torch.matmul(a, b)


@contextmanager
def cpu_precision(precision: str) -> Iterator[None]:
    """How oneDNN may compute FP32 products meanwhile, whatever the script asked of its card."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = precision
    try:
        yield
    finally:
        settings.fp32_precision = before


def _format(x: Tensor, operand: Operand) -> FloatFormat:
    if operand is Operand.FP8:
        return format_of(x.dtype) or E4M3
    return _FORMATS[operand]
