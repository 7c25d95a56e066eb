"""Matrix product with a tensor core's accumulator in PyTorch: the fallback, and the readable definition.

The same bits as ``exact_kernel.c`` (tested), in FP64, where every step is exact: products have at most
48 bits, aligned terms are integers below 2^35.
"""

from __future__ import annotations

import torch
from torch import Tensor

from windtunnel.numerics.accumulators import Accumulator, Rounding

ZERO = -8000
NO_PRODUCT = -4000
SPECIAL = 16000
_MOST_PRODUCTS = 1 << 22  # products held at once: bounds memory to about 100 MB


def matmul(
    a: Tensor,
    a_exponents: Tensor,
    b: Tensor,
    b_exponents: Tensor,
    out: Tensor,
    accumulator: Accumulator,
    scales: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """``out + a @ b`` for ``a`` [M, K] and ``b`` [K, N], exact FP32 values with int16 exponents.

    ``scales``: with promotion, factors [M, slabs] and [slabs, N] of each slab's sum.
    """
    rows = max(1, _MOST_PRODUCTS // max(1, b.shape[1] * accumulator.terms))
    parts = []
    for start in range(0, a.shape[0], rows):
        part = slice(start, start + rows)
        factors = None if scales is None else (scales[0][part], scales[1])
        parts.append(_rows(a[part], a_exponents[part], b, b_exponents, out[part], accumulator, factors))
    return torch.cat(parts) if parts else out.clone()


def _rows(
    a: Tensor,
    ea: Tensor,
    b: Tensor,
    eb: Tensor,
    c: Tensor,
    acc: Accumulator,
    scales: tuple[Tensor, Tensor] | None,
) -> Tensor:
    depth = a.shape[1]
    if not acc.promotion:
        return _register(a, ea, b, eb, c, acc)
    for index, start in enumerate(range(0, depth, acc.promotion)):
        slab = slice(start, min(start + acc.promotion, depth))
        partial = _register(a[:, slab], ea[:, slab], b[slab], eb[slab], torch.zeros_like(c), acc)
        if scales is None:
            c = c + partial
        else:
            c = fused_multiply_add(scales[0][:, index, None] * scales[1][index], partial, c)
    return c


def _register(a: Tensor, ea: Tensor, b: Tensor, eb: Tensor, c: Tensor, acc: Accumulator) -> Tensor:
    for start in range(0, a.shape[1], acc.terms):
        chunk = slice(start, start + acc.terms)
        c = _chunk(a[:, chunk], ea[:, chunk], b[chunk], eb[chunk], c, acc)
    return c


def _chunk(a: Tensor, ea: Tensor, b: Tensor, eb: Tensor, c: Tensor, acc: Accumulator) -> Tensor:
    exponents = ea.t().unsqueeze(2) + eb.unsqueeze(1)  # [chunk, M, N]
    products = a.double().t().unsqueeze(2) * b.double().unsqueeze(1)
    register = _register_exponent(c, acc)
    special = (exponents.amax(0) >= SPECIAL // 4) | ~c.isfinite()
    total = products.sum(0) + c.double() if bool(special.any()) else None
    shift = torch.maximum(exponents.masked_fill_(exponents <= NO_PRODUCT, 2 * ZERO).amax(0), register)
    shift = shift.clamp_(max=600).int() - acc.fraction_bits
    scale = power_of_two(-shift)
    aligned = products.mul_(scale).trunc_().sum(0) + (c.double() * scale).trunc_()
    result = fit_register(aligned * power_of_two(shift), acc)
    return result if total is None else torch.where(special, total.float(), result)


def _register_exponent(c: Tensor, acc: Accumulator) -> Tensor:
    lowest = -14 if acc.rounding is Rounding.FP16 else -126
    field = ((c.view(torch.int32) >> 23) & 0xFF) - 127
    return torch.where(c == 0, acc.zero_exponent, field.clamp(min=lowest)).to(torch.int16)


def fit_register(v: Tensor, acc: Accumulator) -> Tensor:
    """An exact FP64 sum as the accumulator's register holds it, FP32."""
    half = acc.rounding is Rounding.FP16
    lowest, bits = (-14, 10) if half else (-126, acc.register_bits)
    exponent = (((v.view(torch.int64) >> 52) & 0x7FF) - 1023).clamp_(min=lowest).int() - bits
    unit = power_of_two(exponent)
    units = v / unit
    kept = (units.trunc() if acc.rounding is Rounding.TRUNCATE else units.round()) * unit
    if half:
        kept = torch.where(kept.abs() > 65504.0, torch.full_like(kept, torch.inf).copysign(kept), kept)
    return kept.float() + 0.0


def power_of_two(exponent: Tensor) -> Tensor:
    """2 to an integer tensor, FP64; exact for -1022 to 1023."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)


def fused_multiply_add(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """``x * y + z`` in FP32 with one rounding, as an FFMA instruction does it."""
    product = x.double() * y.double()  # exact: 48 bits
    addend = z.double()
    total = product + addend
    # The FP64 sum rounded to odd carries what FP32 rounding needs (53 >= 24 + 2 bits).
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    bits = total.view(torch.int64)
    toward_zero = (error != 0) & ((error < 0) == (total > 0))
    bits = torch.where(toward_zero, bits - 1, bits)
    bits = torch.where(error.isfinite() & (error != 0), bits | 1, bits)
    return torch.where(total.isfinite(), bits.view(torch.float64), total).float()
