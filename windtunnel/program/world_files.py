"""A recorded world on disk: ``train.wt`` holds the first rank, ``train.rank8.wt`` and so on those that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from windtunnel.program import file
from windtunnel.program.program import Program


def save(programs: Sequence[Program], path: str | Path) -> None:
    """One file for each rank, the first under ``path`` itself. Raises E905."""
    for old in _siblings(path):
        old.unlink()
    for number, program in enumerate(programs):
        file.save(program, path if number == 0 else _rank_path(path, program.origin.rank))


def load(path: str | Path) -> list[Program]:
    """The ranks recorded together under ``path``; one program where it is of a single card. Raises E9xx."""
    return with_others(file.load(path), path)


def with_others(first: Program, path: str | Path) -> list[Program]:
    """``first``, which is at ``path``, and the ranks recorded with it. Raises E9xx."""
    if first.origin.world_size == 1:
        return [first]
    others = [file.load(sibling) for sibling in _siblings(path)]
    mine = [
        other
        for other in others
        if other.origin.world_size == first.origin.world_size and other.origin.script == first.origin.script
    ]
    return [first, *sorted(mine, key=lambda program: program.origin.rank)]


def _rank_path(path: str | Path, rank: int) -> Path:
    place = Path(path)
    return place.with_name(f"{place.stem}.rank{rank}{place.suffix}")


def _siblings(path: str | Path) -> list[Path]:
    place = Path(path)
    return sorted(place.parent.glob(f"{place.stem}.rank*{place.suffix}"))
