"""``exact_matmul``: a product with a given accumulator, by the C kernel or by PyTorch, same bits.

Operands are FP32 tensors that hold values of a narrow format. Not here: rounding to a format
(``casts``), which accumulator a chip has (``profiles``), PyTorch's entry points (``matmul``).
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from windtunnel.numerics import exact_torch
from windtunnel.numerics.accumulators import Accumulator
from windtunnel.numerics.compiled import Engine, Operand, Problem, library
from windtunnel.numerics.formats import FloatFormat

_ROWS_PER_THREAD = 16


def exact_matmul(
    a: Tensor,
    b: Tensor,
    accumulator: Accumulator,
    formats: tuple[FloatFormat, FloatFormat],
    *,
    start: Tensor | None = None,
    scales: tuple[Tensor, Tensor] | None = None,
    block_scales: tuple[Tensor, Tensor] | None = None,
    engine: Engine = Engine.AUTO,
) -> Tensor:
    """``start + a @ b`` as the accumulator computes it.

    Args:
        a, b: FP32 [M, K] and [K, N], or [batch, M, K] and [batch, K, N], any strides; values of ``formats``
            (two FP8 formats may be mixed).
        start: FP32, shape of the result: the accumulator's initial value; zero if not given.
        scales: with promotion, FP32 [M, slabs] and [slabs, N]: each slab's sum is multiplied by their
            product and added in one FFMA (the order of DeepGEMM's FP8 kernel).
        block_scales: power-of-two factors [M, K] and [K, N] that the tensor core itself applies to the
            operands (MX formats); they shift exponents and cost no precision.

    Returns:
        FP32 [M, N] or [batch, M, N]. NaN if a term is NaN, infinities meet or zero meets infinity. Identical at any
        thread count and with either engine.
    """
    batched = a.dim() == 3
    left, right = (a, b) if batched else (a.unsqueeze(0), b.unsqueeze(0))
    shape = (left.shape[0], left.shape[1], right.shape[2])
    out = torch.zeros(shape) if start is None else start.float().reshape(shape).clone()
    if out.numel() and left.shape[2]:
        kernel = library() if engine is not Engine.TORCH else None
        if kernel is not None:
            _by_kernel(kernel, left, right, out, accumulator, formats, scales, block_scales)
        elif engine is Engine.COMPILED:
            raise RuntimeError("the C kernel cannot be built here")
        else:
            parts = [
                _by_torch(x, y, c, accumulator, formats, scales, block_scales)
                for x, y, c in zip(left, right, out, strict=True)
            ]
            out = torch.stack(parts)
    return out if batched else out[0]


def exponents(x: Tensor, fmt: FloatFormat) -> Tensor:
    """Exponent of each element as the format defines it, with marks for zero and for Inf and NaN; int16."""
    pattern = x.view(torch.int32) if x.is_contiguous() else x.contiguous().view(torch.int32)
    field = (pattern >> 23).to(torch.int16) & 0xFF
    found = (field - 127).clamp_(min=fmt.min_exponent)
    found.masked_fill_(x == 0, exact_torch.ZERO)
    return found.masked_fill_(field == 0xFF, exact_torch.SPECIAL)


def _shift(x: Tensor, exponent: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    by = torch.frexp(factor).exponent.to(torch.int16) - 1
    usual = (exponent > exact_torch.NO_PRODUCT) & (exponent < exact_torch.SPECIAL)
    shifted = torch.where(usual, exponent + by, exponent)
    scaled = x * factor
    return scaled, torch.where(scaled.isfinite(), shifted, exact_torch.SPECIAL).to(torch.int16)


def _by_torch(
    a: Tensor,
    b: Tensor,
    start: Tensor,
    accumulator: Accumulator,
    formats: tuple[FloatFormat, FloatFormat],
    scales: tuple[Tensor, Tensor] | None,
    block_scales: tuple[Tensor, Tensor] | None,
) -> Tensor:
    ea, eb = exponents(a, formats[0]), exponents(b, formats[1])
    if block_scales is not None:
        a, ea = _shift(a, ea, block_scales[0])
        b, eb = _shift(b, eb, block_scales[1])
    return exact_torch.matmul(a, ea, b, eb, start, accumulator, scales)


def _by_kernel(
    kernel: ctypes.CDLL,
    a: Tensor,
    b: Tensor,
    out: Tensor,
    acc: Accumulator,
    formats: tuple[FloatFormat, FloatFormat],
    scales: tuple[Tensor, Tensor] | None,
    block_scales: tuple[Tensor, Tensor] | None,
) -> None:
    batch, rows, depth = a.shape
    columns = b.shape[2]
    # These names keep the memory alive that the kernel reads.
    row_scale, column_scale = (None, None) if scales is None else (x.float().contiguous() for x in scales)
    factors = (None, None) if block_scales is None else tuple(x.float().contiguous() for x in block_scales)
    left, right = _operand(a, factors[0], formats[0]), _operand(b, factors[1], formats[1])

    def part(first: int, last: int) -> int:
        problem = Problem(
            last - first, columns, depth, acc.fraction_bits, acc.terms, acc.zero_exponent,
            acc.register_bits, acc.rounding.value, acc.promotion,
        )  # fmt: skip
        result: int = kernel.wt_exact_matmul(
            ctypes.byref(problem), batch, first, rows, ctypes.byref(left), ctypes.byref(right),
            _address(row_scale), _address(column_scale), out.data_ptr(),
        )  # fmt: skip
        return result

    threads = min(torch.get_num_threads(), -(-rows // _ROWS_PER_THREAD))
    if threads == 1:
        failed = part(0, rows)
    else:
        bounds = [rows * i // threads for i in range(threads + 1)]
        failed = min(_pool(threads, os.getpid()).map(part, bounds[:-1], bounds[1:]))
    if failed:
        raise MemoryError


def _operand(x: Tensor, factors: Tensor | None, fmt: FloatFormat) -> Operand:
    return Operand(x.data_ptr(), _address(factors), *x.stride(), fmt.min_exponent)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # By process: a forked child has the object and none of its threads.
    return ThreadPoolExecutor(threads, thread_name_prefix="windtunnel-exact")
