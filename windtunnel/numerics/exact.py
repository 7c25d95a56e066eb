"""``exact_matmul``: a 2-D product with a given accumulator, by the C kernel or by PyTorch, same bits.

Operands are FP32 tensors that hold values of a narrow format. Not here: rounding to a format
(``casts``), which accumulator a chip has (``profiles``), PyTorch's entry points (``matmul``).
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from windtunnel.numerics import exact_torch
from windtunnel.numerics.accumulators import Accumulator
from windtunnel.numerics.compiled import Engine, Problem, library
from windtunnel.numerics.formats import FloatFormat

PANEL = 32  # columns that the C kernel handles at once
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
        a, b: FP32 [M, K] and [K, N], values of ``formats`` (two FP8 formats may be mixed).
        start: FP32 [M, N], the accumulator's initial value; zero if not given.
        scales: with promotion, FP32 [M, slabs] and [slabs, N]: each slab's sum is multiplied by their
            product and added in one FFMA (the order of DeepGEMM's FP8 kernel).
        block_scales: power-of-two factors [M, K] and [K, N] that the tensor core itself applies to the
            operands (MX formats); they shift exponents and cost no precision.

    Returns:
        FP32 [M, N]. NaN if a term is NaN, infinities meet or zero meets infinity. Identical at any
        thread count and with either engine.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    out = torch.zeros(rows, columns) if start is None else start.float().clone()
    if out.numel() == 0 or depth == 0:
        return out
    ea, eb = exponents(a, formats[0]), exponents(b, formats[1])
    if block_scales is not None:
        a, ea = _shift(a, ea, block_scales[0])
        b, eb = _shift(b, eb, block_scales[1])
    kernel = library() if engine is not Engine.TORCH else None
    if kernel is None:
        if engine is Engine.COMPILED:
            raise RuntimeError("the C kernel cannot be built here")
        return exact_torch.matmul(a, ea, b, eb, out, accumulator, scales)
    return _by_kernel(kernel, (a.contiguous(), ea.contiguous()), (b, eb), out, accumulator, scales)


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


def _by_kernel(
    kernel: ctypes.CDLL,
    a: tuple[Tensor, Tensor],
    b: tuple[Tensor, Tensor],
    out: Tensor,
    acc: Accumulator,
    scales: tuple[Tensor, Tensor] | None,
) -> Tensor:
    rows, depth = a[0].shape
    columns = out.shape[1]
    padding = -columns % PANEL
    values, exps = _panels(b[0], padding, 0.0), _panels(b[1], padding, exact_torch.ZERO)
    result = torch.nn.functional.pad(out, (0, padding)).contiguous()
    row_scale = None if scales is None else scales[0].float().contiguous()
    column_scale = (
        None if scales is None else torch.nn.functional.pad(scales[1].float(), (0, padding)).contiguous()
    )

    column_at = 0 if column_scale is None else column_scale.data_ptr()

    def part(first: int, last: int) -> None:
        problem = Problem(
            last - first, columns, depth, acc.fraction_bits, acc.terms, acc.zero_exponent,
            acc.register_bits, acc.rounding.value, acc.promotion,
        )  # fmt: skip
        kernel.wt_exact_matmul(
            ctypes.byref(problem), _row(a[0], first), _row(a[1], first), values.data_ptr(), exps.data_ptr(),
            _row(row_scale, first), column_at, _row(result, first),
        )  # fmt: skip

    threads = min(torch.get_num_threads(), -(-rows // _ROWS_PER_THREAD))
    if threads == 1:
        part(0, rows)
    else:
        bounds = [rows * i // threads for i in range(threads + 1)]
        list(_pool(threads).map(part, bounds[:-1], bounds[1:]))
    return result[:, :columns].contiguous() if padding else result


def _panels(x: Tensor, padding: int, fill: float) -> Tensor:
    padded = torch.nn.functional.pad(x, (0, padding), value=fill) if padding else x
    return padded.reshape(x.shape[0], -1, PANEL).transpose(0, 1).contiguous()


def _row(x: Tensor | None, row: int) -> int:
    return 0 if x is None else x.data_ptr() + row * x.stride(0) * x.element_size()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="windtunnel-exact")
