"""Which peak a kernel computes against, what it sustains of it, and what happens when the chip has none.

A kernel's main loop spends time in the matrix units, at the data sheet's peak, and time on everything around
them (addresses, barriers, copies to shared memory), which passes at the clock of the multiprocessors:

    1 ÷ sustained = 1 ÷ (CEILING × peak) + 1 ÷ (issue × multiprocessors × clock)

``issue``, FLOPs of 16-bit operands a clock and multiprocessor, belongs to the kernel and carries over between
chips: a kernel at
80 % of the peak of a chip with 4,096 FLOPs a clock and multiprocessor reaches 70 % with twice that, and above
90 % where the peak is cut down.
"""

from __future__ import annotations

from windtunnel.cost.batch import ELEMENT_BYTES
from windtunnel.errors import WindtunnelError
from windtunnel.specs.schema import Chip, Quantity

_VECTOR = {"fp64": "fp64"}

CEILING = 0.97
"""Most of a data sheet peak that any kernel sustains: the clock under load is a little below the boost clock."""


THROTTLED = 1.25
"""Boost clock ÷ base clock of chips whose base clock is not stated: about what an H100 has."""


def power_slowdown(chip: Chip, throttle: float) -> float:
    """How much longer kernels take that keep the matrix units busy for long: the power limit lowers the clock.

    ``throttle`` is how far, in logarithms, the clock falls from boost (0) to base (1). It belongs to the kernel
    and carries over between chips.
    """
    base = chip.base_clock_hz
    ratio = THROTTLED if base is None else chip.clock_hz.value / base.value
    return float(ratio**throttle)


def sustained_flops(chip: Chip, precision: str, issue: float) -> float:
    """FLOP/s of a main loop whose instructions around the matrix units allow ``issue`` FLOPs a clock and unit."""
    return 1.0 / (1.0 / matrix_flops(chip, precision) + 1.0 / issue_flops(chip, precision, issue))


def matrix_flops(chip: Chip, precision: str) -> float:
    """FLOP/s while the matrix units work."""
    return CEILING * matrix_peak(chip, precision).value


SYNCHRONOUS = 0.629
"""Share of an H100's dense peak that instructions of the generation before reach (``mma.sync``; Luo et al. 2024,
arXiv 2402.13499): matrix units of Hopper and Blackwell want operands in shared memory, asynchronously."""
SYNCHRONOUS_FLOPS = SYNCHRONOUS * 4096.0
"""The same in FLOPs of 16-bit operands a clock and multiprocessor; an A100 has 2,048 altogether."""


def synchronous_flops(chip: Chip, precision: str) -> float:
    """FLOP/s of matrix units that a kernel written for A100 drives on this chip."""
    units = chip.multiprocessors.value * chip.clock_hz.value
    return min(
        matrix_flops(chip, precision), CEILING * SYNCHRONOUS_FLOPS * (2.0 / ELEMENT_BYTES[precision]) * units
    )


def issue_flops(chip: Chip, precision: str, issue: float) -> float:
    """FLOP/s that the instructions around the matrix units allow: operands of half the bytes, twice the FLOPs."""
    units = chip.multiprocessors.value * chip.clock_hz.value
    return issue * (2.0 / ELEMENT_BYTES[precision]) * units


def matrix_peak(chip: Chip, precision: str) -> Quantity:
    """The dense peak of ``precision`` in FLOP/s; FP64 products use the matrix units where the chip has them.

    Raises WindtunnelError E501 where the chip lacks the precision.
    """
    name = "fp64_tensor" if precision == "fp64" and "fp64_tensor" in chip.peak_flops else precision
    if name not in chip.peak_flops:
        raise WindtunnelError(
            "E501",
            f"{chip.title} has no {precision.upper()} matrix units",
            hint="choose a precision that the chip has, or state a peak: "
            f"--set {chip.name}.peak_flops.{precision}=VALUE",
            values={"chip": chip.name, "precisions": ", ".join(sorted(chip.peak_flops))},
        )
    return chip.peak_flops[name]


def vector_peak(chip: Chip, precision: str = "fp32") -> Quantity:
    """The peak of the vector units in FLOP/s: FP64 for FP64 data, FP32 for everything else."""
    return chip.peak_flops[_VECTOR.get(precision, "fp32")]
