"""Chips by name: the shipped folder of data, the user's own folders, aliases and single overrides.

What this is not: the reading of a file (``files.py``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.specs.files import FILE_NAME, Base, aliases_of, chip_of_folder, completed
from windtunnel.specs.overrides import overridden
from windtunnel.specs.schema import Chip
from windtunnel.specs.table import did_you_mean

CHIPS = Path(__file__).parent / "chips"
FOLDERS_VARIABLE = "WINDTUNNEL_CHIPS"
"""Environment variable: folders of chips, separated as in PATH."""


def chip(name: str, overrides: Sequence[str] = (), folders: Sequence[Path] = ()) -> Chip:
    """The chip called ``name``: an id or an alias, in any case.

    Args:
        overrides: numbers to replace, as ``memory_bytes_per_s=1.4e12`` or ``peak_flops.fp64=5e11``, for
            one chip of several as ``h20.clock_hz=1.5e9``.
        folders: the user's folders; each is one chip's or holds several. They go before the shipped ones,
            after them come those of WINDTUNNEL_CHIPS.

    Raises:
        WindtunnelError: E101, no such chip; E102 to E109, its file or an override is not sound.
    """
    found = _places(tuple(folders))
    folder = _find(name.strip().lower(), found)
    return overridden(_read(folder, tuple(folders)), overrides, lambda other: _is_chip(other, found))


def chip_names(folders: Sequence[Path] = ()) -> list[str]:
    """The ids of all chips, in alphabetical order."""
    return sorted(_places(tuple(folders)))


@cache
def generation_of(name: str) -> str:
    """Which chips run the same kernels: a shipped chip's architecture without its refinements (``Blackwell`` of a
    Blackwell Ultra); the name itself where it is no shipped chip's.
    """
    folder = _shipped().get(name)
    return name if folder is None else _shipped_chip(folder).architecture.partition(" ")[0]


def _places(folders: tuple[Path, ...]) -> Mapping[str, Path]:
    """Folder of every chip by id. A user's chip hides a shipped one of the same name."""
    places = dict(_shipped())
    variable = [Path(entry) for entry in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if entry]
    for folder in reversed([*folders, *variable]):
        places.update(_chips_in(folder))
    return places


@cache
def _shipped() -> Mapping[str, Path]:
    return _chips_in(CHIPS)


def _chips_in(folder: Path) -> dict[str, Path]:
    if (folder / FILE_NAME).is_file():
        return {folder.resolve().name.lower(): folder.resolve()}
    if folder.is_dir():
        found = {file.parent.name.lower(): file.parent for file in sorted(folder.glob(f"*/{FILE_NAME}"))}
        if found:
            return found
    raise WindtunnelError(
        "E108",
        f"no chip in {folder}: no `{FILE_NAME}` in it or in a folder below it",
        hint="give the folder of one chip, or a folder that holds such folders; docs/adding-a-chip.md",
    )


def _is_chip(name: str, places: Mapping[str, Path]) -> bool:
    return name in places or any(name in aliases_of(folder) for folder in places.values())


def _find(name: str, places: Mapping[str, Path]) -> Path:
    if name in places:
        return places[name]
    others = {alias.lower(): folder for folder in places.values() for alias in aliases_of(folder)}
    if name in others:
        return others[name]
    raise WindtunnelError(
        "E101",
        f"no chip is called `{name}`",
        hint=f"{did_you_mean(name, [*places, *others])}list them all: windtunnel chips",
        values={"known": ", ".join(sorted(places))},
    )


def _read(folder: Path, folders: tuple[Path, ...]) -> Chip:
    shipped = folder.parent == CHIPS
    return _shipped_chip(folder) if shipped else chip_of_folder(folder, _bases(folder, folders))


@cache
def _shipped_chip(folder: Path) -> Chip:
    return chip_of_folder(folder, _bases(folder, ()))


def _bases(folder: Path, folders: tuple[Path, ...]) -> Base:
    """Finds the data that the chip in ``folder`` is based on; a circle is refused."""

    def find(name: str, seen: tuple[str, ...] = (folder.name,)) -> Mapping[str, object]:
        below = _find(name.lower(), _places(folders))
        if below.name in seen:
            raise WindtunnelError(
                "E109",
                f"chips are based on each other in a circle: {' → '.join((*seen, below.name))}",
                hint="one of them must state all its numbers",
                values={"file": below / FILE_NAME},
            )
        return completed(below, lambda next_name: find(next_name, (*seen, below.name))).data

    return find
