"""One number of a chip replaced from the command line: ``memory_bytes_per_s=1.4e12``."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace

from windtunnel.errors import WindtunnelError
from windtunnel.specs.files import PEAK_UNIT, PRECISIONS, UNITS
from windtunnel.specs.schema import Chip, Quantity, ScaleUp, Trust
from windtunnel.specs.table import did_you_mean
from windtunnel.units import parse_bytes, parse_count

SOURCE = "command line"
FIELDS = (*UNITS, *(f"peak_flops.{precision}" for precision in PRECISIONS))


def overridden(chip: Chip, overrides: Sequence[str], is_chip: Callable[[str], bool]) -> Chip:
    """``chip`` with the stated numbers replaced, each marked as assumed.

    Args:
        overrides: ``field=value`` or, for one chip of several, ``chip.field=value``. A value is a plain
            number or has a decimal suffix (``500T``); bytes also take ``GB`` and ``GiB``.
        is_chip: whether a name is that of some chip, so that overrides of other chips can be passed over.

    Raises:
        WindtunnelError: E107, an override cannot be read; E106, its value cannot be.
    """
    for text in overrides:
        target, path, value = _parsed(text)
        if target and not is_chip(target):
            raise _bad(text, f"no chip is called `{target}`", "name a chip, or none to replace it everywhere")
        if target in ("", chip.name, *chip.aliases):
            chip = _with(chip, path, value, text)
    return chip


def _parsed(text: str) -> tuple[str, str, str]:
    """Chip or nothing, field, value."""
    path, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not path or not value:
        raise _bad(text, "it is not FIELD=VALUE", "write for example --set memory_bytes_per_s=1.4e12")
    if path in FIELDS:
        return "", path, value
    target, _, field = path.partition(".")
    if field in FIELDS:
        return target.lower(), field, value
    raise _bad(
        text,
        f"`{path}` is not a number of a chip",
        f"{did_you_mean(path, FIELDS)}numbers: {', '.join(UNITS)}, peak_flops.PRECISION",
    )


def _with(chip: Chip, path: str, text: str, whole: str) -> Chip:
    unit = UNITS.get(path, PEAK_UNIT)
    value = _number(text, unit, whole)
    zero_allowed = path == "link_bytes_per_s" and chip.scale_up is ScaleUp.PCIE
    if value < 0 or (value == 0 and not zero_allowed):
        raise WindtunnelError(
            "E106",
            f"`{path}` is {text}: it must be above zero",
            hint=f"state it in {unit}, above zero",
            values={"override": whole},
        )
    quantity = Quantity(
        value=value,
        unit=unit,
        source=SOURCE,
        date=datetime.date.today().isoformat(),
        trust=Trust.ASSUMED,
        note=f"--set {whole}",
    )
    applied = (*chip.overrides, whole)
    if path in UNITS:
        return replace(chip, **{path: quantity, "overrides": applied})  # type: ignore[arg-type]
    precision = path.removeprefix("peak_flops.")
    return replace(chip, peak_flops={**chip.peak_flops, precision: quantity}, overrides=applied)


def _number(text: str, unit: str, whole: str) -> float:
    try:
        return float(parse_bytes(text)) if unit == "B" else parse_count(text)
    except ValueError as error:
        raise _bad(whole, str(error), f"state a number in {unit}, such as 1.4e12") from None


def _bad(override: str, why: str, hint: str) -> WindtunnelError:
    return WindtunnelError("E107", f"cannot use the override `{override}`: {why}", hint=hint)
