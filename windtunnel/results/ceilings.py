"""The limits of a chip that a roofline is drawn under."""

from __future__ import annotations

from windtunnel.estimate import Source
from windtunnel.results.run_result import Ceiling
from windtunnel.specs.schema import Chip, Quantity, Trust

_SOURCES = {
    Trust.VENDOR: Source.DATASHEET,
    Trust.MEASURED: Source.MEASURED,
    Trust.REPORTED: Source.DATASHEET,
    Trust.DERIVED: Source.DATASHEET,
    Trust.ASSUMED: Source.ASSUMED,
}


def ceilings(chip: Chip) -> tuple[Ceiling, ...]:
    """Dense peaks by precision (FLOP/s), then the bandwidths of memory and L2 (B/s)."""
    peaks = [_ceiling(name, quantity, per_byte=False) for name, quantity in chip.peak_flops.items()]
    memory = _ceiling("memory", chip.memory_bytes_per_s, per_byte=True)
    cache = _ceiling("L2", chip.l2_bytes_per_s, per_byte=True)
    return (*peaks, memory, cache)


def _ceiling(label: str, quantity: Quantity, *, per_byte: bool) -> Ceiling:
    return Ceiling(label, quantity.value, per_byte, _SOURCES[quantity.trust])
