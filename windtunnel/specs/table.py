"""Reading TOML strictly: every complaint names the file and the path inside it, and carries a code.

What this is not: knowledge of chips or clusters; ``files.py`` and ``cluster_files.py`` say which keys exist.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from windtunnel.errors import WindtunnelError
from windtunnel.specs.schema import Provenance, Quantity, Trust

Choice = TypeVar("Choice", bound=StrEnum)

QUANTITY_KEYS = ("value", "unit", "source", "date", "trust", "note")
PROVENANCE_KEYS = ("source", "date", "trust", "note")
NEEDS_NOTE = (Trust.ASSUMED, Trust.DERIVED)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a TOML file and the path that leads to it."""

    data: Mapping[str, object]
    file: Path
    path: str = ""

    def at(self, key: str) -> str:
        """The full path of ``key`` inside the file."""
        return f"{self.path}.{key}" if self.path else key

    def only(self, allowed: Iterable[str]) -> None:
        """Refuse keys that nobody reads: E104."""
        known = list(allowed)
        for key in self.data:
            if key not in known:
                raise self.error(
                    "E104",
                    f"`{self.at(key)}` is not a known key",
                    hint=f"{did_you_mean(key, known)}known here: {', '.join(known)}",
                )

    def has(self, key: str) -> bool:
        return key in self.data

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise self.wrong(key, value, "a text that is not empty")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def integer(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(key, value, "a whole number")
        if value < least:
            raise self.out_of_range(key, value, f"{least} or more")
        return value

    def number(self, key: str, default: float | None = None, *, zero: bool = False) -> float:
        """A finite number above zero, or from zero on where ``zero`` is allowed."""
        value = self._get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong(key, value, "a number")
        try:
            number = float(value)
        except OverflowError:  # a whole number beyond the range of floats
            number = math.inf
        if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
            raise self.out_of_range(
                key, number, "finite, and zero or more" if zero else "finite and above zero"
            )
        return number

    def texts(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        value = self._get(key, None if default is None else list(default))
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, value, "a list of texts")
        return tuple(value)

    def pair(self, key: str) -> tuple[int, int]:
        return _pair(self, key, self._get(key, None))

    def pairs(self, key: str) -> tuple[tuple[int, int], ...]:
        value = self._get(key, [])
        if not isinstance(value, list):
            raise self.wrong(key, value, "a list of pairs of whole numbers")
        return tuple(_pair(self, key, item) for item in value)

    def choice(self, key: str, kind: type[Choice], default: Choice | None = None) -> Choice:
        value = self._get(key, default)
        try:
            return kind(str(value))
        except ValueError:
            raise self.wrong(key, value, "one of " + ", ".join(kind)) from None

    def table(self, key: str) -> Table:
        value = self._get(key, None)
        if not isinstance(value, dict):
            raise self.wrong(key, value, f"a table: [{self.at(key)}]")
        return Table(value, self.file, self.at(key))

    def quantity(self, key: str, unit: str, *, zero: bool = False) -> Quantity:
        """A number with its unit, source, date and trust; every one of them required."""
        value = self._get(key, None)
        if not isinstance(value, dict):
            raise self.wrong(key, value, "a table: { value = …, unit = …, source = …, date = …, trust = … }")
        table = Table(value, self.file, self.at(key))
        table.only(QUANTITY_KEYS)
        number = table.number("value", zero=zero)
        stated = table.text("unit")
        if stated != unit:
            raise self.error(
                "E105",
                f"`{table.at('unit')}` is `{stated}`, not `{unit}`",
                hint=f'numbers are stored in SI base units: convert the value and write unit = "{unit}"',
                values={"value": number, "unit": stated},
            )
        origin = table.provenance()
        return Quantity(
            value=number,
            unit=unit,
            source=origin.source,
            date=origin.date,
            trust=origin.trust,
            note=origin.note,
        )

    def provenance(self) -> Provenance:
        """``source``, ``date`` and ``trust`` of this table; a note too where the number is a conclusion."""
        trust = self.choice("trust", Trust)
        note = self.text("note", "")
        if trust in NEEDS_NOTE and not note.strip():
            raise self.error(
                "E103",
                f"`{self.at('note')}` is missing: an {trust} number needs its reasoning",
                hint=f"say in `{self.at('note')}` why this value and not another",
            )
        date = self.text("date")
        if not date[:4].isdigit():
            raise self.wrong("date", date, "an ISO 8601 date, a year or year-month is enough")
        return Provenance(source=self.text("source"), date=date, trust=trust, note=note)

    def error(
        self, code: str, what: str, *, hint: str, values: Mapping[str, object] | None = None
    ) -> WindtunnelError:
        """An error that says which file it is about."""
        return WindtunnelError(code, what, hint=hint, values={"file": self.file, **(values or {})})

    def wrong(self, key: str, value: object, expected: str) -> WindtunnelError:
        """E104: the wrong kind of value."""
        return self.error(
            "E104", f"`{self.at(key)}` is not {expected}", hint=f"write {expected}", values={"value": value}
        )

    def out_of_range(self, key: str, value: object, expected: str) -> WindtunnelError:
        """E106: a number that cannot be."""
        return self.error(
            "E106",
            f"`{self.at(key)}` is {value}: it must be {expected}",
            hint=f"state a value {expected}, in SI base units",
            values={"value": value},
        )

    def _get(self, key: str, default: object) -> object:
        value = self.data.get(key, default)
        if value is None:
            raise self.error(
                "E103",
                f"`{self.at(key)}` is missing",
                hint=f"add `{self.at(key)}` to the file; docs/adding-a-chip.md shows a complete one",
            )
        return value


def read_toml(file: Path) -> Table:
    """The whole file as a table.

    Raises:
        WindtunnelError: E102, it cannot be read or is not TOML.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise WindtunnelError(
            "E102", f"cannot read {file}: {reason}", hint="check the path and its permissions"
        ) from None
    try:
        return Table(tomllib.loads(text), file)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise WindtunnelError(
            "E102",
            f"{file} is not TOML: {error}",
            hint="correct the line; docs/adding-a-chip.md shows a complete file",
        ) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean `x`? `` or nothing."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"did you mean `{near[0]}`? " if near else ""


def _pair(table: Table, key: str, value: object) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value):
        return value[0], value[1]
    raise table.wrong(key, value, "a pair of whole numbers, [a, b]")
