"""Quantities as numbers in SI base units, and the one place where they are turned into text and back.

Rates are decimal (TFLOP/s, GB/s), memory is binary (GiB). Names of bare numbers carry their unit:
``_s``, ``_bytes``, ``_flops``, ``_bytes_per_s``.
"""

from __future__ import annotations

import math

KIB = 1024
MIB = 1024**2
GIB = 1024**3

GIGA = 1e9
TERA = 1e12
PETA = 1e15

MICROSECOND = 1e-6
MILLISECOND = 1e-3

_TIME_STEPS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_DECIMAL_STEPS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY_STEPS = ((1024**4, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
_BYTE_SUFFIXES = {
    "b": 1,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "tb": 1e12,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": 1024**4,
}
_COUNT_SUFFIXES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}


def significant(value: float, digits: int = 3) -> str:
    """Format ``value`` with ``digits`` significant digits, thousands separated, never in exponents."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def seconds(value_s: float, digits: int = 3) -> str:
    """``0.00139`` → ``1.39 ms``; hours and minutes above two minutes."""
    if value_s < 0:
        return "-" + seconds(-value_s, digits)
    if value_s >= 7200:
        return f"{significant(value_s / 3600, digits)} h"
    if value_s >= 120:
        return f"{significant(value_s / 60, digits)} min"
    for scale, suffix in _TIME_STEPS:
        if value_s >= scale:
            return f"{significant(value_s / scale, digits)} {suffix}"
    return "0 s" if value_s == 0 else f"{significant(value_s * 1e9, digits)} ns"


def binary_bytes(value_bytes: float, digits: int = 3) -> str:
    """``54_525_952_000`` → ``50.8 GiB``."""
    for scale, suffix in _BINARY_STEPS:
        if abs(value_bytes) >= scale:
            return f"{significant(value_bytes / scale, digits)} {suffix}"
    return f"{value_bytes:.0f} B"


def gib(value_bytes: float, digits: int = 3) -> str:
    """Always in GiB, the unit of memory columns."""
    return f"{significant(value_bytes / GIB, digits)} GiB"


def decimal(value: float, unit: str, digits: int = 3) -> str:
    """``9.89e14, "FLOP/s"`` → ``989 TFLOP/s``."""
    for scale, prefix in _DECIMAL_STEPS:
        if abs(value) >= scale:
            return f"{significant(value / scale, digits)} {prefix}{unit}"
    return f"{significant(value, digits)} {unit}"


def percent(fraction: float, digits: int = 3) -> str:
    """``0.345`` → ``34.5 %``."""
    return f"{significant(100 * fraction, digits)} %"


def count(value: float) -> str:
    """``41312`` → ``41,312``."""
    return f"{value:,.0f}"


def parse_bytes(text: str) -> int:
    """``"80 GB"``, ``"79.1GiB"``, ``"512"`` → bytes. Raises ValueError on anything else."""
    return int(_parse(text, _BYTE_SUFFIXES, "bytes"))


def parse_count(text: str) -> float:
    """``"671B"`` is ambiguous and refused; ``"1.5k"``, ``"400G"``, ``"1024"`` → a number."""
    return _parse(text, _COUNT_SUFFIXES, "a number")


def _parse(text: str, suffixes: dict[str, float], kind: str) -> float:
    stripped = text.strip().lower().replace(",", "").replace("_", "")
    digits = stripped.rstrip("abcdefghijklmnopqrstuvwxyz ")
    suffix = stripped[len(digits) :].strip()
    if suffix == "" and suffixes is _BYTE_SUFFIXES:
        suffix = "b"
    if suffix not in suffixes:
        raise ValueError(f"`{text}` is not {kind}")
    try:
        value = float(digits) * suffixes[suffix]
    except ValueError:
        raise ValueError(f"`{text}` is not {kind}") from None
    if not math.isfinite(value):
        raise ValueError(f"`{text}` is not {kind}")
    return value
