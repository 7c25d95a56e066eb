"""Number formats of tensor cores: what each can hold. Rounding to them is in ``casts``.

A format is plain data; the same description serves scalars of FP4 and of TF32.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch


class Overflow(StrEnum):
    """What a cast does with a magnitude beyond the largest finite value.

    ``SATURATE``: to the largest finite value, infinities too; NaN stays NaN.
    ``SPECIAL``: to infinity, or to NaN in a format without infinities.
    """

    SATURATE = "saturate"
    SPECIAL = "special"


class Specials(StrEnum):
    """Which codes a format spends on what is not finite."""

    IEEE = "ieee"  # the top exponent holds infinities and NaN
    NAN_ONLY = "nan-only"  # ``fn``: one NaN per sign (all ones), no infinity
    UNSIGNED_ZERO = "unsigned-zero"  # ``fnuz``: NaN is the code of minus zero
    NONE = "none"  # every code is a finite number


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """One binary floating-point format.

    Attributes:
        name: as it is written in reports.
        exponent_bits, mantissa_bits: stored bits, without sign and hidden bit.
        bias: exponent bias.
        specials: what is not finite.
        overflow: what ``tensor.to(dtype)`` does with overflow, on CPU as on CUDA and MUSA cards.
        dtype: PyTorch's dtype of the same codes, where it has one with one code per element.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: Specials
    overflow: Overflow
    dtype: torch.dtype | None = None

    @property
    def bits(self) -> int:
        """Bits of one code, sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number, and of every subnormal."""
        return 1 - self.bias

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite number."""
        top = (1 << self.exponent_bits) - 1 - self.bias
        return top - 1 if self.specials is Specials.IEEE else top

    @property
    def max(self) -> float:
        """Largest finite number."""
        last = 2.0 - 2.0**-self.mantissa_bits
        if self.specials is Specials.NAN_ONLY:
            last -= 2.0**-self.mantissa_bits
        return float(last * 2.0**self.max_exponent)

    @property
    def smallest(self) -> float:
        """Smallest positive number (subnormal)."""
        return float(2.0 ** (self.min_exponent - self.mantissa_bits))

    @property
    def has_infinity(self) -> bool:
        """Whether the format can hold infinity."""
        return self.specials is Specials.IEEE

    @property
    def has_nan(self) -> bool:
        """Whether the format can hold NaN."""
        return self.specials is not Specials.NONE


# OCP 8-bit Floating Point Specification (OFP8) 1.0, table 1, for E4M3 and E5M2; the ``fnuz`` pair is
# described in arXiv 2206.02915. PyTorch's cast saturates E4M3FN and lets the others overflow.
E4M3 = FloatFormat("e4m3", 4, 3, 7, Specials.NAN_ONLY, Overflow.SATURATE, torch.float8_e4m3fn)
E5M2 = FloatFormat("e5m2", 5, 2, 15, Specials.IEEE, Overflow.SPECIAL, torch.float8_e5m2)
E4M3FNUZ = FloatFormat("e4m3fnuz", 4, 3, 8, Specials.UNSIGNED_ZERO, Overflow.SPECIAL, torch.float8_e4m3fnuz)
E5M2FNUZ = FloatFormat("e5m2fnuz", 5, 2, 16, Specials.UNSIGNED_ZERO, Overflow.SPECIAL, torch.float8_e5m2fnuz)
# OCP Microscaling Formats (MX) 1.0, section 5.3: no code is special, conversions saturate.
E2M1 = FloatFormat("e2m1", 2, 1, 1, Specials.NONE, Overflow.SATURATE)
E2M3 = FloatFormat("e2m3", 2, 3, 1, Specials.NONE, Overflow.SATURATE)
E3M2 = FloatFormat("e3m2", 3, 2, 3, Specials.NONE, Overflow.SATURATE)

FP16 = FloatFormat("fp16", 5, 10, 15, Specials.IEEE, Overflow.SPECIAL, torch.float16)
BF16 = FloatFormat("bf16", 8, 7, 127, Specials.IEEE, Overflow.SPECIAL, torch.bfloat16)
TF32 = FloatFormat("tf32", 8, 10, 127, Specials.IEEE, Overflow.SPECIAL)
FP32 = FloatFormat("fp32", 8, 23, 127, Specials.IEEE, Overflow.SPECIAL, torch.float32)

_BY_DTYPE = {
    fmt.dtype: fmt for fmt in (E4M3, E5M2, E4M3FNUZ, E5M2FNUZ, FP16, BF16, FP32) if fmt.dtype is not None
}
FP8_DTYPES = frozenset(fmt.dtype for fmt in (E4M3, E5M2, E4M3FNUZ, E5M2FNUZ) if fmt.dtype is not None)


def format_of(dtype: torch.dtype) -> FloatFormat | None:
    """The format of a PyTorch dtype that a tensor core multiplies; None for any other dtype."""
    return _BY_DTYPE.get(dtype)
