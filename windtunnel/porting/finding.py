"""A place that names one vendor: where, what, what becomes of it on MUSA, and the edit that frees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """What becomes of a place on a Moore Threads card with torch_musa and torchada, worst last."""

    REDIRECTED = "redirected"  # runs as it is
    EDIT = "edit"  # a line must change
    PORT = "port"  # rests on a compiled package or kernel that has a counterpart
    TIED = "tied"  # nothing known takes its place


ORDER = tuple(Level)


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the bytes ``start`` to ``end`` of the file by ``text``.

    Attributes:
        needs_name: ``text`` uses the constant that holds the accelerator's name.
    """

    start: int
    end: int
    text: str
    needs_name: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One place. ``line`` counts from 1; ``instead`` is empty where nothing is known."""

    path: str
    line: int
    what: str
    level: Level
    instead: str = ""
    edit: Edit | None = None

    @property
    def mechanical(self) -> bool:
        """Whether nothing but the offered edit is left to do."""
        return self.level is Level.REDIRECTED or (self.level is Level.EDIT and self.edit is not None)


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be looked at, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Scan:
    """All places of a codebase.

    Attributes:
        files, lines: how many were read.
    """

    findings: Sequence[Finding]
    unread: Sequence[Unread]
    files: int
    lines: int

    @property
    def free(self) -> bool:
        """Whether everything runs as it is or after the mechanical edits."""
        return all(finding.mechanical for finding in self.findings)

    def at(self, level: Level) -> list[Finding]:
        """The places of one level."""
        return [finding for finding in self.findings if finding.level is level]
