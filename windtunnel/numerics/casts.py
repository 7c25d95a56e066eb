"""Rounding FP32 tensors to a narrower format, to codes and back: exact, vectorised, on the CPU.

``round_to`` returns FP32 tensors that hold values of the format ("fake quantisation"), which is what
the emulated matrix products consume: it skips the detour through codes. ``encode`` and ``decode``
translate to codes (uint8) and back.

Not here: scales (see ``scaling``).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from windtunnel.numerics.formats import E4M3, FloatFormat, Overflow, Specials

_EXPONENT_MASK = 0x7F80_0000


def round_to(x: Tensor, fmt: FloatFormat, overflow: Overflow | None = None) -> Tensor:
    """``x`` rounded to the nearest value of ``fmt``, ties to even, as FP32.

    Args:
        x: any floating dtype and shape. FP64 is rounded once, not first to FP32.
        fmt: the target; its values must fit FP32 (all formats here do).
        overflow: policy beyond the largest finite value; ``fmt.overflow`` if not given.

    Returns:
        an FP32 tensor of the same shape. NaN stays NaN; a format without NaN (FP4, FP6) has nothing
        to hold it and gets its largest value, as ``cvt.rn.satfinite`` does (PTX ISA, cvt).
    """
    policy = fmt.overflow if overflow is None else overflow
    if fmt.mantissa_bits == 23:
        return x.float()
    wide = _to_float32_keeping_ties(x) if x.dtype is torch.float64 else x.float()
    if fmt.dtype is not None and policy is fmt.overflow is Overflow.SPECIAL:
        return wide.to(fmt.dtype).float()  # PyTorch's own cast is the same function, and faster
    if fmt.exponent_bits == 8:
        return _round_mantissa(wide, 23 - fmt.mantissa_bits, policy, fmt.max)
    return _round_narrow(wide, fmt, policy)


def truncate_to_tf32(x: Tensor) -> Tensor:
    """FP32 with the low 13 bits dropped: what ``mma`` does with FP32 bits given as TF32 operands.

    Source: PTX ISA ("the lower 13 bits are ignored"), confirmed by the A100 vectors of
    MATLAB-tensor-core, whose inputs are TF32 values.
    """
    return (x.float().view(torch.int32) & ~0x1FFF).view(torch.float32)


def encode(x: Tensor, fmt: FloatFormat, overflow: Overflow | None = None) -> Tensor:
    """Codes of ``x`` in an 8-bit or narrower format, one code per uint8, right-aligned."""
    _require_small(fmt)
    values = round_to(x, fmt, overflow)
    magnitude = values.abs()
    negative = torch.signbit(values)
    if fmt.specials is Specials.UNSIGNED_ZERO:
        negative &= values != 0
    codes = torch.where(magnitude >= 2.0**fmt.min_exponent, _normal_codes(magnitude, fmt), 0)
    subnormal = (magnitude.clamp(max=2.0**fmt.min_exponent) / fmt.smallest).int()
    codes = torch.where(magnitude < 2.0**fmt.min_exponent, subnormal, codes)
    codes = codes + (negative.int() << (fmt.bits - 1))
    if fmt.has_infinity:
        infinity = (1 << fmt.exponent_bits) - 1 << fmt.mantissa_bits
        codes = torch.where(values.isinf(), infinity + (negative.int() << (fmt.bits - 1)), codes)
    if fmt.has_nan:
        codes = torch.where(values.isnan(), _nan_code(fmt) | _nan_sign(values, fmt), codes)
    return codes.to(torch.uint8)


def decode(codes: Tensor, fmt: FloatFormat) -> Tensor:
    """FP32 values of codes given as uint8 or as the float8 dtype of ``fmt``; same shape."""
    _require_small(fmt)
    raw = codes if codes.dtype is torch.uint8 else codes.view(torch.uint8)
    return _table(fmt).take(raw.long()) if raw.numel() < 4096 else _decode_large(raw, fmt)


def values_of(x: Tensor) -> Tensor:
    """Any floating tensor as FP32 values, float8 dtypes by the fast route (``.float()`` is 2-3× slower)."""
    if x.dtype is torch.float8_e4m3fn:
        return decode(x, E4M3)
    return x.float()


def power_of_two_floor(x: Tensor) -> Tensor:
    """The largest power of two not above each positive ``x`` (FP32): 0 for 0 and subnormals; NaN stays."""
    floor = (x.float().view(torch.int32) & _EXPONENT_MASK).view(torch.float32)
    return torch.where(x.isnan(), x.float(), floor)


def _round_narrow(x: Tensor, fmt: FloatFormat, policy: Overflow) -> Tensor:
    # Adding and subtracting 1.5 × 2^23 units in the last place rounds to nearest even at that place.
    # One unit is 2^(e - mantissa), or the subnormal spacing below the normal range.
    bound = fmt.max if policy is Overflow.SATURATE else 2.0 ** (fmt.max_exponent + 1)
    clamped = x.clamp(-bound, bound)
    magic = (clamped.view(torch.int32) & _EXPONENT_MASK).view(torch.float32)
    magic = magic.clamp_(min=2.0**fmt.min_exponent).mul_(1.5 * 2.0 ** (23 - fmt.mantissa_bits))
    rounded = torch.add(clamped, magic).sub_(magic)
    rounded = torch.copysign(rounded, x, out=rounded)
    if policy is Overflow.SPECIAL:
        beyond = torch.inf if fmt.has_infinity else torch.nan
        rounded = torch.where(rounded.abs() > fmt.max, torch.full_like(rounded, beyond).copysign_(x), rounded)
    if not fmt.has_nan:
        rounded = torch.where(rounded.isnan(), fmt.max, rounded)
    if fmt.specials is Specials.UNSIGNED_ZERO:
        rounded += 0.0
    return rounded


def _round_mantissa(x: Tensor, dropped: int, policy: Overflow, largest: float) -> Tensor:
    # Formats with FP32's exponent (BF16, TF32): integer rounding of the pattern, carries included.
    bits = x.view(torch.int32)
    odd = (bits >> dropped) & 1
    rounded = (bits + odd.add_((1 << (dropped - 1)) - 1)) & -(1 << dropped)
    values = torch.where(x.isnan(), x, rounded.view(torch.float32))
    return values.clamp(-largest, largest) if policy is Overflow.SATURATE else values


def _to_float32_keeping_ties(x: Tensor) -> Tensor:
    # Round to odd: an inexact FP32 gets its last bit set, so that a second rounding to nearest
    # (to 22 bits or fewer) sees on which side of a tie the FP64 value was.
    nearest = x.float()
    back = nearest.double()
    bits = nearest.view(torch.int32)
    truncated = torch.where(back.abs() > x.abs(), bits - 1, bits)
    odd = torch.where(back == x, truncated, truncated | 1).view(torch.float32)
    return torch.where(x.isfinite(), odd, nearest)


def _normal_codes(magnitude: Tensor, fmt: FloatFormat) -> Tensor:
    bits = magnitude.view(torch.int32) >> (23 - fmt.mantissa_bits)
    return bits - ((127 - fmt.bias) << fmt.mantissa_bits)


def _nan_code(fmt: FloatFormat) -> int:
    if fmt.specials is Specials.UNSIGNED_ZERO:
        return 1 << (fmt.bits - 1)
    if fmt.specials is Specials.NAN_ONLY:
        return (1 << (fmt.bits - 1)) - 1
    return ((1 << fmt.exponent_bits) - 1 << fmt.mantissa_bits) + (1 << (fmt.mantissa_bits - 1))


def _nan_sign(values: Tensor, fmt: FloatFormat) -> Tensor:
    if fmt.specials is Specials.UNSIGNED_ZERO:
        return torch.zeros_like(values, dtype=torch.int32)
    return torch.signbit(values).int() << (fmt.bits - 1)


@cache
def _table(fmt: FloatFormat) -> Tensor:
    codes = torch.arange(256)
    magnitude = codes & ((1 << (fmt.bits - 1)) - 1)
    exponent = magnitude >> fmt.mantissa_bits
    fraction = (magnitude & ((1 << fmt.mantissa_bits) - 1)).double()
    hidden = (exponent > 0).double() * 2**fmt.mantissa_bits
    value = (fraction + hidden) * torch.exp2(exponent.clamp(min=1) - fmt.bias - fmt.mantissa_bits).double()
    sign = 1.0 - 2.0 * ((codes >> (fmt.bits - 1)) & 1).double()
    table: Tensor = (sign * value).float()
    top = (1 << fmt.exponent_bits) - 1
    if fmt.specials is Specials.IEEE:
        special = exponent == top
        table = torch.where(special & (fraction == 0), (sign * torch.inf).float(), table)
        table = torch.where(special & (fraction != 0), torch.nan, table)
    elif fmt.specials is Specials.NAN_ONLY:
        table = torch.where(magnitude == (1 << (fmt.bits - 1)) - 1, torch.nan, table)
    elif fmt.specials is Specials.UNSIGNED_ZERO:
        table = torch.where(codes == 1 << (fmt.bits - 1), torch.nan, table)
    return table


def _decode_large(raw: Tensor, fmt: FloatFormat) -> Tensor:
    if fmt is not E4M3:
        return _table(fmt).take(raw.long())
    # E4M3 shifted into FP16's fields reads 2^-8 of its value, subnormals included. Its NaN would read
    # 480, so that pattern is replaced where it occurs.
    shifted = (raw.view(torch.int8).to(torch.int16) << 7) & ~0x4000
    values: Tensor = shifted.view(torch.float16).float().mul_(256.0)
    if max(float(values.amax()), -float(values.amin())) == 480.0:
        values.masked_fill_(values.abs() == 480.0, torch.nan)
    return values


def _require_small(fmt: FloatFormat) -> None:
    if fmt.bits > 8:
        raise ValueError(f"{fmt.name} has {fmt.bits} bits; codes are for 8 bits or fewer, use the dtype")
