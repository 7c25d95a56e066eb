"""Memory that a process holds on a card outside the caching allocator: "usable" is the total less this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.estimate import Source
from windtunnel.specs.schema import Chip, Vendor
from windtunnel.units import MIB


@dataclass(frozen=True, slots=True)
class HeldOutside:
    """One thing held outside the allocator, in bytes a card and process."""

    what: str
    nbytes: int
    source: Source
    where: str


CUDA_CONTEXT = HeldOutside(
    "driver context and loaded kernels",
    520 * MIB,
    Source.ASSUMED,
    "between 400 and 650 MiB on data-centre cards with PyTorch's and cuBLAS's kernels loaded",
)
MUSA_CONTEXT = HeldOutside(
    "driver context and loaded kernels",
    520 * MIB,
    Source.ASSUMED,
    "undisclosed for MUSA: taken as on CUDA",
)


def held_outside(chip: Chip) -> tuple[HeldOutside, ...]:
    """What one process holds on a card outside the allocator, without communicators."""
    return (MUSA_CONTEXT if chip.vendor is Vendor.MOORE_THREADS else CUDA_CONTEXT,)


def usable_bytes(chip: Chip) -> int:
    """What the allocator can get from the driver."""
    return int(chip.memory_bytes.value) - sum(item.nbytes for item in held_outside(chip))


COMMUNICATOR_BYTES = 256 * MIB
"""Buffers of one communicator (channels × protocols × peers). Assumed: seen between 0.1 and 0.6 GiB for eight
ranks; it is held outside the allocator."""


def communication_bytes(degrees: Sequence[int]) -> int:
    """Buffers for one communicator of each degree above 1."""
    return COMMUNICATOR_BYTES * sum(degree > 1 for degree in degrees)
