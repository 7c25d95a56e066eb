"""Which peak a kernel computes against, and what happens when the chip has none."""

from __future__ import annotations

from windtunnel.errors import WindtunnelError
from windtunnel.specs.schema import Chip, Quantity

_VECTOR = {"fp64": "fp64"}


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
