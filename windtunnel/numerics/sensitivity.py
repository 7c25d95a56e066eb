"""What an accumulator does to a matrix product, and how much rests on what a vendor does not disclose.

Short inner dimensions hide it: with K below about 1,000 a 13-bit accumulator, a promoted one and FP32 train
the same model. The studies here therefore go up to K = 16,384.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from windtunnel.numerics import casts
from windtunnel.numerics.accumulators import Accumulator, Rounding
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import E4M3

DEPTHS = (128, 512, 1024, 4096, 16384)


class Inputs(StrEnum):
    """What the operands are drawn from: the first makes every product positive, so that errors add up."""

    UNIFORM = "uniform on [0, 1)"
    NORMAL = "standard normal"


@dataclass(frozen=True, slots=True)
class AccumulationError:
    """Error of one product [rows, K] by [K, rows] of E4M3 values against FP64.

    Attributes:
        depth: K.
        max_relative: largest error of one element, relative to it.
        relative_norm: Frobenius norm of the error over that of the result.
        bias: mean of (result - true) / |true|: negative where sums are truncated.
    """

    depth: int
    max_relative: float
    relative_norm: float
    bias: float


@dataclass(frozen=True, slots=True)
class WidthResult:
    """One row of a sweep over undisclosed properties.

    Attributes:
        change: largest relative change of a result against the first accumulator of the sweep.
        passes_gate: whether BF16 results lie within 5e-3 + 5e-3 |true| of the true product, as the public
            test of the S5000's FP8 kernels demands (MooreThreads/mate, gemm_fp8_nt_groupwise).
    """

    accumulator: Accumulator
    error: AccumulationError
    change: float
    passes_gate: bool


def accumulation_errors(
    accumulator: Accumulator,
    inputs: Inputs = Inputs.UNIFORM,
    depths: Sequence[int] = DEPTHS,
    *,
    rows: int = 64,
    seed: int = 0,
) -> list[AccumulationError]:
    """How the error of a product grows with its inner dimension."""
    found = []
    for depth in depths:
        a, b = _operands(inputs, depth, rows, seed)
        got = exact_matmul(a, b, accumulator, (E4M3, E4M3))
        found.append(_error(got, a.double() @ b.double(), depth))
    return found


def undisclosed_variants(stated: Accumulator) -> list[Accumulator]:
    """The stated accumulator first, then it with what is undisclosed varied one thing at a time.

    Alignment and register narrower than stated, rounding to nearest instead of truncation, more or fewer
    products at once.
    """
    variants = [stated]
    variants += [
        replace(stated, fraction_bits=bits, register_bits=min(bits, 23))
        for bits in (24, 22, 20, 19, 18, 16, 14, 13)
    ]
    variants.append(replace(stated, rounding=Rounding.NEAREST))
    variants += [replace(stated, terms=terms) for terms in (16, 64, 128) if terms != stated.terms]
    return variants


def width_sweep(
    variants: Sequence[Accumulator],
    inputs: Inputs = Inputs.UNIFORM,
    depth: int = 11008,
    *,
    rows: int = 16,
    seed: int = 0,
) -> list[WidthResult]:
    """The same product by several accumulators. 11,008 is the longest K of the public test."""
    a, b = _operands(inputs, depth, rows, seed)
    true = a.double() @ b.double()
    target = true.float()
    results = []
    first: Tensor | None = None
    for accumulator in variants:
        got = exact_matmul(a, b, accumulator, (E4M3, E4M3))
        first = got if first is None else first
        close = (got.bfloat16().float() - target).abs() <= 5e-3 + 5e-3 * target.abs()
        change = float(((got - first).abs() / first.abs().clamp(min=1e-30)).max())
        results.append(WidthResult(accumulator, _error(got, true, depth), change, bool(close.all())))
    return results


def _operands(inputs: Inputs, depth: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    make = torch.rand if inputs is Inputs.UNIFORM else torch.randn
    a, b = make(rows, depth, generator=draw), make(rows, depth, generator=draw)
    return casts.round_to(a, E4M3), casts.round_to(b, E4M3).t()


def _error(got: Tensor, true: Tensor, depth: int) -> AccumulationError:
    relative = (got.double() - true) / true.abs().clamp(min=1e-300)
    norm = float((got.double() - true).norm() / true.norm())
    return AccumulationError(depth, float(relative.abs().max()), norm, float(relative.mean()))
