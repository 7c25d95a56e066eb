"""What a prediction rests on: versions, and facts of the chip that are assumed and were used."""

from __future__ import annotations

from windtunnel import __version__, units
from windtunnel.program.program import Program
from windtunnel.specs.schema import Chip, Quantity, Trust

_USED_BY_ALL = (
    "memory_bytes_per_s",
    "l2_bytes_per_s",
    "l2_bytes",
    "launch_s",
    "graph_launch_s",
    "kernel_floor_s",
)


def versions(program: Program, chip: Chip) -> tuple[tuple[str, str], ...]:
    """Versions of everything that moves a prediction; what is unknown is left out."""
    found = (
        ("windtunnel", __version__),
        ("recorded with windtunnel", program.origin.windtunnel_version),
        ("recorded with torch", program.origin.torch_version),
        ("chip data", max(quantity.date for quantity in _quantities(chip))),
    )
    return tuple((what, version) for what, version in found if version)


def assumptions(program: Program, chip: Chip) -> tuple[str, ...]:
    """Facts of the chip that nobody has disclosed and that this program uses."""
    precisions = sorted({work.precision for work in program.works if work.flops or work.vector_flops})
    said = [
        f"{name} peak {units.decimal(peak.value, 'FLOP/s')}"
        for name in precisions
        if (peak := chip.peak_flops.get(tf32_or(program, chip, name))) is not None
        and peak.trust is Trust.ASSUMED
    ]
    for name in _USED_BY_ALL:
        quantity: Quantity = getattr(chip, name)
        if quantity.trust is Trust.ASSUMED:
            said.append(f"{name} {units.significant(quantity.value)} {quantity.unit}")
    return tuple(said)


def tf32_or(program: Program, chip: Chip, precision: str) -> str:
    """The precision whose peak products run against: FP32 becomes TF32 where program or chip say so."""
    return "tf32" if precision == "fp32" and allows_tf32(program, chip) else precision


def allows_tf32(program: Program, chip: Chip) -> bool:
    """What the script said, or else the chip's default for the PyTorch that recorded it."""
    told = program.origin.allow_tf32
    if told is None:
        return chip.tf32_by_default(program.origin.torch_version)
    return told and "tf32" in chip.peak_flops


def peak_flops(program: Program, chip: Chip, precision: str) -> float:
    """The dense peak that products of ``precision`` run against; 0 where the chip has none."""
    quantity = chip.peak_flops.get(tf32_or(program, chip, precision))
    return quantity.value if quantity else 0.0


def _quantities(chip: Chip) -> list[Quantity]:
    return [*chip.peak_flops.values(), *(getattr(chip, name) for name in _USED_BY_ALL)]
