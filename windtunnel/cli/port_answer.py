"""How the answer of `windtunnel port` looks: what ties the code, place by place, worst first; or JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from windtunnel.cli import output
from windtunnel.porting.finding import ORDER, Finding, Level, Scan
from windtunnel.porting.recorded import Reached
from windtunnel.report.text_table import Shorten, TextColumn, render

MEANING = {
    Level.TIED: "no counterpart known",
    Level.PORT: "a compiled package or kernel with a counterpart",
    Level.EDIT: "a line must change",
    Level.REDIRECTED: "runs as it is under torchada",
}
SHOWN = 30
"""Kinds of places listed without -v."""

SUMMARY = (
    TextColumn("On MUSA"),
    TextColumn("places", right=True),
    TextColumn("files", right=True),
    TextColumn("edit offered", right=True),
    TextColumn("meaning", rank=1),
)
PLACES = (
    TextColumn("On MUSA"),
    TextColumn("What", shorten=Shorten.TAIL, least=16),
    TextColumn("Where", shorten=Shorten.HEAD, least=16),
    TextColumn("more", right=True),
    TextColumn("Instead", rank=1, shorten=Shorten.WRAP, least=24),
)


def lines(scan: Scan, seen: Reached | None, width: int, *, every: bool) -> list[str]:
    """The answer for people. ``every``: each place on a line of its own, and no kind left out."""
    said = [f"read {scan.files:,} files, {scan.lines:,} lines; nothing was run or imported"]
    said += [f"not read: {unread.path}: {unread.why}" for unread in scan.unread]
    if not scan.findings:
        return [*said, "nothing names one vendor", ""]
    listed = _places(scan.findings, every=every)
    shown = listed if every else listed[:SHOWN]
    said += ["", *render(SUMMARY, _summary(scan), width), "", *render(PLACES, shown, width)]
    if len(shown) < len(listed):
        said.append(f"and {len(listed) - len(shown)} more kinds: -v")
    if seen is not None:
        said += ["", *_ran(scan, seen, width)]
    return [*said, "", *output.wrapped(_verdict(scan), width), ""]


def as_json(scan: Scan, seen: Reached | None) -> dict[str, object]:
    """The JSON object: every place, and the counts."""
    data: dict[str, object] = {
        "free": scan.free,
        "files": scan.files,
        "lines": scan.lines,
        "counts": {str(level): len(scan.at(level)) for level in ORDER},
        "places": [_place(finding, seen) for finding in scan.findings],
        "unread": [asdict(unread) for unread in scan.unread],
    }
    if seen is not None:
        data["elsewhere"] = [asdict(place) for place in seen.elsewhere]
    return output.success("port", data) | ({} if scan.free else {"status": "no"})


def _place(finding: Finding, seen: Reached | None) -> dict[str, object]:
    place: dict[str, object] = {
        "path": finding.path,
        "line": finding.line,
        "what": finding.what,
        "level": str(finding.level),
        "instead": finding.instead,
        "edit_offered": finding.edit is not None,
    }
    return place if seen is None else place | {"ran": finding in seen.findings}


def _summary(scan: Scan) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for level in reversed(ORDER):
        at = scan.at(level)
        if at:
            offered = sum(finding.edit is not None for finding in at)
            files = len({finding.path for finding in at})
            rows.append((str(level), f"{len(at):,}", f"{files:,}", f"{offered:,}", MEANING[level]))
    return rows


def _places(findings: Sequence[Finding], *, every: bool) -> list[tuple[str, str, str, str, str]]:
    if every:
        return [(str(f.level), f.what, f"{f.path}:{f.line}", "", f.instead) for f in findings]
    counts = Counter((f.level, f.what, f.instead) for f in findings)
    first: dict[tuple[Level, str, str], Finding] = {}
    for finding in findings:
        first.setdefault((finding.level, finding.what, finding.instead), finding)
    return [
        (
            str(f.level),
            f.what,
            f"{f.path}:{f.line}",
            f"+{counts[kind] - 1}" if counts[kind] > 1 else "",
            f.instead,
        )
        for kind, f in first.items()
    ]


def _ran(scan: Scan, seen: Reached, width: int) -> list[str]:
    text = f"the recorded run came past {len(seen.findings)} of the {len(scan.findings)} places"
    if seen.elsewhere:
        places = ", ".join(f"{place.line} ({place.what})" for place in seen.elsewhere[:5])
        more = f" and {len(seen.elsewhere) - 5} more" if len(seen.elsewhere) > 5 else ""
        count = len(seen.elsewhere)
        text += f", and used CUDA names on {count} other lines, by variables or in packages: {places}{more}"
    return output.wrapped(text, width)


def _verdict(scan: Scan) -> str:
    offered = sum(finding.edit is not None for finding in scan.findings)
    need = sum(not finding.mechanical for finding in scan.findings)
    if scan.free:
        verdict = "free: runs on MUSA as it is, or after the edits of --diff"
    else:
        verdict = f"not free: {need} places need more than a mechanical edit"
    return f"{verdict}; --diff takes the vendor's name out of {offered} of {len(scan.findings)} places"
