"""Which places a recorded run came past: the lines on which the card had to pretend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.porting.finding import Finding, Scan
from windtunnel.program.program import Notice, NoticeKind


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A CUDA name used on another line: in a package, or by a variable that holds a device."""

    line: str
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class Reached:
    """What a run says about a scan."""

    findings: frozenset[Finding]
    elsewhere: Sequence[Elsewhere]


def reached(notices: Sequence[Notice], scan: Scan) -> Reached:
    """The findings on lines that the run came past, and the other lines that used a CUDA name."""
    places: dict[tuple[str, str], list[Finding]] = {}
    for finding in scan.findings:
        places.setdefault((Path(finding.path).name, str(finding.line)), []).append(finding)
    found: set[Finding] = set()
    elsewhere = []
    for notice in notices:
        if notice.kind is not NoticeKind.PRETENDED:
            continue
        file, _, number = notice.line.rpartition(":")
        matching = [
            f for f in places.get((Path(file).name, number), []) if str(Path(f.path).resolve()).endswith(file)
        ]
        found.update(matching)
        if not matching:
            elsewhere.append(Elsewhere(notice.line, notice.what.strip("`"), notice.count))
    return Reached(frozenset(found), elsewhere)
