"""Which arithmetic each chip has: formats, accumulators, defaults, and how well each is known.

Sources of the accumulator figures, which agree with each other: Khattak and Mikaitis, "Accurate models of
NVIDIA tensor cores", arXiv 2512.07004, with recorded outputs of eight GPUs; MMA-Sim, arXiv 2511.10909.
Hopper's FP8 wgmma keeps 13 fraction bits: both of these, and DeepSeek-V3 (arXiv 2412.19437, section 3.3.2,
"around 14 bits"), which moves the sum to FP32 every 128 products.

Moore Threads publishes for the S5000 a 24-bit mantissa of the FP8 accumulator (vendor page, "industry:
14-bit"); the rest of its arithmetic is undisclosed and marked as assumed. The sensitivity of results to it
is computed in ``sensitivity``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

import torch

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.accumulators import Accumulator, GroupedAccumulator
from windtunnel.numerics.formats import FP8_DTYPES
from windtunnel.specs.schema import Chip, Vendor


class Operand(StrEnum):
    """What a tensor core multiplies."""

    FP8 = "fp8"
    FP16 = "fp16"
    BF16 = "bf16"
    TF32 = "tf32"


class Exactness(StrEnum):
    """How far the arithmetic of a profile is known."""

    BIT_EXACT = "bit-exact"  # equal to recorded outputs of the silicon, instruction by instruction
    SPECIFIED = "specified"  # follows what the vendor states; the rest is assumed
    IDEAL = "ideal"  # exact products, FP32 sums in the order of the CPU's library


class ScaleRecipe(StrEnum):
    """How scales are laid over the operands of a scaled matrix product."""

    TENSOR = "per tensor"
    ROW = "per row"
    BLOCK_1X128 = "1x128 by 128x128"
    MX_1X32 = "MX 1x32"


@dataclass(frozen=True, slots=True)
class Fp8Rules:
    """What ``torch._scaled_mm`` refuses on the chip, besides scales.

    Attributes:
        refuses_two_e5m2: both operands E5M2.
        column_major_b: the second operand must be column-major.
        refuses_fp32_bias: a bias with an FP32 result.
    """

    refuses_two_e5m2: bool = False
    column_major_b: bool = False
    refuses_fp32_bias: bool = False


@dataclass(frozen=True, slots=True)
class NumericProfile:
    """The arithmetic of one chip.

    Attributes:
        name: short name for reports, such as ``hopper``.
        accumulators: by operand; an operand that is absent is one that the chip cannot multiply.
        fp4: accumulator of block-scaled FP4; None where the chip has none.
        exactness: how far the accumulators are known.
        fp8_promotion: products after which FP8 kernels without fast accumulation move the sum to FP32.
        scale_recipes: what ``torch._scaled_mm`` takes on the chip; kernel libraries may take more.
        fp8_rules: what else it refuses.
        fast_accumulation: whether ``use_fast_accum=True`` changes anything.
        ideal: compute every product with exact terms and FP32 sums instead (fast); see ``idealised``.
        assumed: what is not disclosed, one line each, for the report.
    """

    name: str
    accumulators: Mapping[Operand, Accumulator]
    exactness: Exactness
    fp4: GroupedAccumulator | None = None
    fp8_promotion: int = 0
    scale_recipes: frozenset[ScaleRecipe] = frozenset()
    fp8_rules: Fp8Rules = Fp8Rules()
    fast_accumulation: bool = False
    ideal: bool = False
    assumed: tuple[str, ...] = field(default=())

    def accumulator(self, operand: Operand, *, fast: bool = False) -> Accumulator:
        """The accumulator for an operand. Raises E702 where the chip cannot multiply it.

        ``fast``: FP8 without promotion, where the chip's kernels make that difference.
        """
        if operand not in self.accumulators:
            have = ", ".join(self.accumulators)
            raise WindtunnelError(
                "E702",
                f"{self.name} has no {operand} matrix product",
                hint=f"use one of the precisions it has: {have}",
                values={"profile": self.name, "precision": str(operand)},
            )
        found = self.accumulators[operand]
        if operand is Operand.FP8 and self.fp8_promotion and not (fast and self.fast_accumulation):
            return found.promoted_every(self.fp8_promotion)
        return found

    def idealised(self) -> NumericProfile:
        """The same formats and rules with exact products and FP32 sums: as fast as FP32 on the CPU."""
        return replace(self, ideal=True, exactness=Exactness.IDEAL)


def _family(
    fraction_bits: int, chunk_bytes: int, operands: tuple[Operand, ...]
) -> dict[Operand, Accumulator]:
    # Zero terms count with an exponent that falls with the width: -131 at 23 bits, -133 at 25.
    zero = -108 - fraction_bits
    bytes_of = {Operand.FP8: 1, Operand.FP16: 2, Operand.BF16: 2, Operand.TF32: 4}
    return {op: Accumulator(fraction_bits, chunk_bytes // bytes_of[op], zero) for op in operands}


def _fp8_13_bits(terms: int) -> Accumulator:
    return Accumulator(13, terms, -133 if terms == 32 else -132, register_bits=13)


_HALVES = (Operand.FP16, Operand.BF16, Operand.TF32)
_SCALED = frozenset({ScaleRecipe.TENSOR, ScaleRecipe.ROW})
_NVIDIA_ASSUMED = (
    "order of k across thread blocks (split-K, stream-K): taken as sequential",
    "FP32 operands under TF32 reach the tensor core unrounded, which truncates them",
)
# aten/src/ATen/native/cuda/ScaledBlas.cpp: row-major by column-major is required on Hopper and before.
_NVIDIA_RULES = Fp8Rules(refuses_two_e5m2=True, column_major_b=True, refuses_fp32_bias=True)

VOLTA = NumericProfile(
    "volta",
    MappingProxyType(_family(23, 8, (Operand.FP16,))),
    Exactness.BIT_EXACT,
    assumed=_NVIDIA_ASSUMED[:1],
)
TURING = NumericProfile(
    "turing",
    MappingProxyType(_family(24, 16, (Operand.FP16,))),
    Exactness.BIT_EXACT,
    assumed=_NVIDIA_ASSUMED[:1],
)
AMPERE = NumericProfile(
    "ampere", MappingProxyType(_family(24, 16, _HALVES)), Exactness.BIT_EXACT, assumed=_NVIDIA_ASSUMED
)
ADA = NumericProfile(
    "ada",
    MappingProxyType({**_family(24, 16, _HALVES), Operand.FP8: _fp8_13_bits(16)}),
    Exactness.BIT_EXACT,
    scale_recipes=_SCALED,
    fp8_rules=_NVIDIA_RULES,
    assumed=("FP8 kernels never move the sum to FP32, with or without fast accumulation", *_NVIDIA_ASSUMED),
)
HOPPER = NumericProfile(
    "hopper",
    MappingProxyType({**_family(25, 32, _HALVES), Operand.FP8: _fp8_13_bits(32)}),
    Exactness.BIT_EXACT,
    fp8_promotion=128,
    scale_recipes=_SCALED | {ScaleRecipe.BLOCK_1X128},
    fp8_rules=_NVIDIA_RULES,
    fast_accumulation=True,
    assumed=(
        "FP8 kernels without fast accumulation move the sum to FP32 every 128 products, as CUTLASS does",
        *_NVIDIA_ASSUMED,
    ),
)
BLACKWELL = NumericProfile(
    "blackwell",
    MappingProxyType(_family(25, 32, (*_HALVES, Operand.FP8))),
    Exactness.BIT_EXACT,
    fp4=GroupedAccumulator(16, 64, 35, -139),
    scale_recipes=_SCALED | {ScaleRecipe.MX_1X32},
    fp8_rules=replace(_NVIDIA_RULES, column_major_b=False),
    assumed=(
        "FP8 and FP4 follow tcgen05 as MMA-Sim models it; recorded B200 outputs of FP8 mma.sync differ",
        *_NVIDIA_ASSUMED,
    ),
)
_MUSA_ASSUMED = (
    "products added at once, rounding of the register, order of k: undisclosed, "
    "taken as 32 bytes of operands, toward zero, sequential",
    "rounding of FP32 operands to TF32: undisclosed, taken as truncation",
)
S5000 = NumericProfile(
    "s5000",
    MappingProxyType(_family(23, 32, (*_HALVES, Operand.FP8))),
    Exactness.SPECIFIED,
    scale_recipes=_SCALED,
    assumed=(
        "FP8 accumulates with 24 bits of mantissa as the vendor states; other formats taken to do the same",
        *_MUSA_ASSUMED,
    ),
)
S4000 = NumericProfile(
    "s4000",
    MappingProxyType(_family(23, 32, _HALVES)),
    Exactness.SPECIFIED,
    assumed=("width of the accumulator: undisclosed, taken as 24 bits", *_MUSA_ASSUMED),
)

PROFILES = (VOLTA, TURING, AMPERE, ADA, HOPPER, BLACKWELL, S4000, S5000)
_BY_CAPABILITY = {
    (Vendor.NVIDIA, 7, 0): VOLTA,
    (Vendor.NVIDIA, 7, 5): TURING,
    (Vendor.NVIDIA, 8, 0): AMPERE,
    (Vendor.NVIDIA, 8, 6): AMPERE,
    (Vendor.NVIDIA, 8, 9): ADA,
    (Vendor.NVIDIA, 9, 0): HOPPER,
    (Vendor.NVIDIA, 10, 0): BLACKWELL,
    (Vendor.NVIDIA, 10, 3): BLACKWELL,
    (Vendor.MOORE_THREADS, 2, 2): S4000,
    (Vendor.MOORE_THREADS, 3, 1): S5000,
}


def profile_of(chip: Chip) -> NumericProfile:
    """The arithmetic of a chip, by vendor and compute capability. Raises E701 where none is known."""
    found = _BY_CAPABILITY.get((chip.vendor, *chip.compute_capability))
    if found is None:
        raise WindtunnelError(
            "E701",
            f"the arithmetic of {chip.name} is not known",
            hint="run it in shadow mode, or on one of the chips whose tensor cores are described",
            values={
                "chip": chip.name,
                "compute capability": ".".join(map(str, chip.compute_capability)),
                "described": ", ".join(profile.name for profile in PROFILES),
            },
        )
    return found


def profile_named(name: str) -> NumericProfile:
    """A profile by its short name. Raises KeyError."""
    return {profile.name: profile for profile in PROFILES}[name]


def operand_of(dtype: torch.dtype, *, tf32: bool) -> Operand | None:
    """How the chip multiplies a dtype; None: on its vector units (FP32 without TF32, FP64, integers)."""
    if dtype in FP8_DTYPES:
        return Operand.FP8
    by_dtype = {torch.float16: Operand.FP16, torch.bfloat16: Operand.BF16}
    return Operand.TF32 if dtype is torch.float32 and tf32 else by_dtype.get(dtype)
