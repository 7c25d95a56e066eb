"""Dense matrix products as a chip computes them: what mm, bmm, addmm, baddbmm and linear call.

Tensors live on the CPU and hold data. FP16, BF16, and FP32 under TF32 go through the chip's tensor-core
arithmetic; FP32, FP64, complex and integers through the CPU's own, which is IEEE arithmetic in an order of
its own, as on the chip's vector units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.formats import FP8_DTYPES
from windtunnel.numerics.gemm import cpu_precision, narrow_product
from windtunnel.numerics.profiles import NumericProfile, Operand, operand_of
from windtunnel.specs.schema import Chip, Vendor


@dataclass(frozen=True, slots=True)
class MathMode:
    """The switches of the framework that change results.

    Attributes:
        tf32_matmul, tf32_convolution: FP32 operands are read as TF32.
        fp16_accumulation: ``torch.backends.cuda.matmul.allow_fp16_accumulation``.
    """

    tf32_matmul: bool = False
    tf32_convolution: bool = False
    fp16_accumulation: bool = False


IEEE = MathMode()


def default_mode(chip: Chip, adapter_version: tuple[int, int] | None = None) -> MathMode:
    """The switches as they stand before a script touches them.

    NVIDIA: PyTorch leaves TF32 off for matmul and on for cuDNN convolutions (``torch.backends`` docs).
    Moore Threads: torch_musa up to 2.7 multiplied FP32 in TF32, 2.9 and later does not. Without a version,
    ``chip.tf32_default``.
    """
    has_tf32 = "tf32" in chip.peak_flops
    if chip.vendor is Vendor.MOORE_THREADS:
        on = chip.tf32_default if adapter_version is None else adapter_version < (2, 9)
        return MathMode(tf32_matmul=on and has_tf32, tf32_convolution=on and has_tf32)
    return MathMode(tf32_matmul=chip.tf32_default and has_tf32, tf32_convolution=has_tf32)


def chip_matmul(
    a: Tensor,
    b: Tensor,
    *,
    profile: NumericProfile,
    mode: MathMode = IEEE,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``torch.matmul(a, b)`` as the chip computes it: 1-D, 2-D, batched and broadcast operands.

    Args:
        out_dtype: dtype of the result; that of the operands if not given. The FP32 sum is rounded to it once.

    Raises:
        WindtunnelError: E702 precision that the chip lacks, E703 plain product of FP8 tensors, E704 shapes
            or dtypes that do not multiply.
    """
    _check(a, b)
    if a.dim() == 1 or b.dim() == 1:
        left = a.unsqueeze(0) if a.dim() == 1 else a
        right = b.unsqueeze(1) if b.dim() == 1 else b
        result = chip_matmul(left, right, profile=profile, mode=mode, out_dtype=out_dtype)
        result = result.squeeze(-1) if b.dim() == 1 else result
        return result.squeeze(-2 if b.dim() != 1 else -1) if a.dim() == 1 else result
    out_dtype = out_dtype or a.dtype
    if profile.ideal and a.dtype is out_dtype is torch.bfloat16:
        # The CPU's BF16 kernels: exact products, FP32 sums, one rounding; twice as fast as by way of FP32.
        profile.accumulator(Operand.BF16)
        return torch.matmul(a, b)
    return wide_product(a, b, profile, mode).to(out_dtype)


def chip_addmm(
    addend: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    profile: NumericProfile,
    mode: MathMode = IEEE,
    beta: float = 1.0,
    alpha: float = 1.0,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``beta * addend + alpha * (a @ b)``: addmm and baddbmm. The epilogue is FP32, rounded once.

    ``addend`` broadcasts; with ``beta`` 0 it is not read, so that NaN in it does not spread.
    """
    _check(a, b)
    wide = wide_product(a, b, profile, mode)
    if alpha != 1:
        wide = wide * alpha
    if beta != 0:
        extra = addend.to(wide.dtype)
        wide = wide + (extra if beta == 1 else extra * beta)
    return wide.to(out_dtype or a.dtype)


def chip_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, profile: NumericProfile, mode: MathMode = IEEE
) -> Tensor:
    """``torch.nn.functional.linear``: x [..., in], weight [out, in], bias [out]; result [..., out]."""
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    if bias is None:
        result = chip_matmul(flat, weight.t(), profile=profile, mode=mode)
    else:
        result = chip_addmm(bias, flat, weight.t(), profile=profile, mode=mode)
    return result.reshape(*x.shape[:-1], weight.shape[0])


def wide_product(
    a: Tensor, b: Tensor, profile: NumericProfile, mode: MathMode, *, convolution: bool = False
) -> Tensor:
    """The unrounded product: FP32 for narrow operands, else the operands' own dtype."""
    tf32 = mode.tf32_convolution if convolution else mode.tf32_matmul
    operand = operand_of(a.dtype, tf32=tf32)
    if operand is None:
        with cpu_precision("ieee"):
            return torch.matmul(a, b)
    if a.dim() > 3 or b.dim() > 3 or (a.dim() != b.dim()):
        return _broadcast(a, b, profile, mode, convolution)
    half_register = mode.fp16_accumulation and operand is Operand.FP16
    return narrow_product(a, b, operand, profile, fp16_register=half_register)


def _broadcast(a: Tensor, b: Tensor, profile: NumericProfile, mode: MathMode, convolution: bool) -> Tensor:
    if b.dim() == 2:  # one weight for all: a single product
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return wide_product(rows, b, profile, mode, convolution=convolution).reshape(
            *a.shape[:-1], b.shape[1]
        )
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    count = math.prod(batch)
    left = a.expand(*batch, *a.shape[-2:]).reshape(count, *a.shape[-2:])
    right = b.expand(*batch, *b.shape[-2:]).reshape(count, *b.shape[-2:])
    result = wide_product(left, right, profile, mode, convolution=convolution)
    return result.reshape(*batch, *result.shape[-2:])


def _check(a: Tensor, b: Tensor) -> None:
    if a.dtype in FP8_DTYPES or b.dtype in FP8_DTYPES:
        raise WindtunnelError(
            "E703",
            f"plain matrix product of {a.dtype} and {b.dtype}: no card has it without scales",
            hint="call torch._scaled_mm (torch.nn.functional.scaled_mm) with scale_a and scale_b",
            values={"a": tuple(a.shape), "b": tuple(b.shape)},
        )
    if a.dtype is not b.dtype:
        _refuse_shapes(a, b, "dtypes differ")
    inner = b.shape[0] if b.dim() == 1 else b.shape[-2] if b.dim() else None
    if a.dim() == 0 or b.dim() == 0 or a.shape[-1] != inner:
        _refuse_shapes(a, b, "inner dimensions differ")


def _refuse_shapes(a: Tensor, b: Tensor, why: str) -> None:
    raise WindtunnelError(
        "E704",
        f"these two tensors do not multiply: {why}",
        hint="print both shapes and dtypes just before the call",
        values={"a": f"{tuple(a.shape)} {a.dtype}", "b": f"{tuple(b.shape)} {b.dtype}"},
    )
