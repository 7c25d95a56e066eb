"""How a tensor core adds up products: one description for every chip known to work this way.

The model, from Khattak & Mikaitis (arXiv 2512.07004) and MMA-Sim (arXiv 2511.10909), confirmed there on
silicon: a dot product of K terms is taken in chunks of ``terms`` consecutive products. Within a chunk
the exact products and the running value are aligned to the largest exponent among them, cut (toward
zero) to ``fraction_bits`` bits below it, added exactly, and written back to a register. Wider sums live
in FP32 registers outside: every ``promotion`` products the register is added to them and starts again
at zero.

Which chip has which numbers is in ``profiles``; the arithmetic itself is in ``exact``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Rounding(Enum):
    """How the sum of a chunk is fitted to the register. The values are those of the C kernel."""

    TRUNCATE = 0  # toward zero, FP32's exponent range
    NEAREST = 1  # to nearest even, FP32's exponent range
    FP16 = 2  # to nearest even, as FP16


@dataclass(frozen=True, slots=True)
class Accumulator:
    """One accumulator.

    Attributes:
        fraction_bits: bits kept below the largest exponent when a chunk is aligned.
        terms: products added at once; the next chunk starts from the register.
        zero_exponent: exponent that a zero term counts with; matters for subnormal sums only.
        register_bits: mantissa bits of the register (hidden bit not counted).
        rounding: how the chunk's sum is fitted to the register.
        promotion: products after which the register is added to an FP32 sum; 0: never. Promotion is
            done by the kernel's software, so it belongs to a kernel, not to the silicon.
    """

    fraction_bits: int
    terms: int
    zero_exponent: int
    register_bits: int = 23
    rounding: Rounding = Rounding.TRUNCATE
    promotion: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.fraction_bits <= 25:
            raise ValueError(f"fraction_bits must be 1 to 25, not {self.fraction_bits}")
        if not 1 <= self.terms <= 1024:
            raise ValueError(f"terms must be 1 to 1024, not {self.terms}")
        if not 1 <= self.register_bits <= 23:
            raise ValueError(f"register_bits must be 1 to 23, not {self.register_bits}")
        if self.promotion % self.terms:
            raise ValueError(f"promotion ({self.promotion}) must be a multiple of terms ({self.terms})")

    def promoted_every(self, products: int) -> Accumulator:
        """The same silicon under a kernel that moves its sum to FP32 every ``products`` products."""
        return replace(self, promotion=products)

    def describe(self) -> str:
        """One line for reports."""
        width = f"{self.fraction_bits} fraction bits, {self.terms} products at once"
        kept = "FP16" if self.rounding is Rounding.FP16 else f"{self.register_bits + 1}-bit"
        how = "truncated" if self.rounding is Rounding.TRUNCATE else "rounded to nearest"
        promoted = f", moved to FP32 every {self.promotion}" if self.promotion else ""
        return f"{width}, {kept} register, {how}{promoted}"

    def with_fp16_register(self) -> Accumulator:
        """The same tensor core asked for an FP16 result: the register rounds to FP16 after every chunk."""
        return replace(
            self,
            register_bits=10,
            rounding=Rounding.FP16,
            zero_exponent=self.zero_exponent + _FP32_TO_FP16_EXPONENT,
            promotion=0,
        )


@dataclass(frozen=True, slots=True)
class GroupedAccumulator:
    """The accumulator of block-scaled FP4: exact sums of ``group`` products, scaled, aligned by their scale.

    Attributes:
        group: products summed exactly before the block scale is applied.
        terms: products per step; ``terms / group`` scaled sums and the register are aligned together.
        fraction_bits: bits kept below the largest exponent of scales and register; the register is FP32,
            truncated.
        zero_exponent: exponent that a group of zeros counts with.
    """

    group: int
    terms: int
    fraction_bits: int
    zero_exponent: int


_FP32_TO_FP16_EXPONENT = 126 - 14  # distance of the two smallest normal exponents
