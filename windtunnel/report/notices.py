"""What a run did on the user's behalf, by kind, for the terminal and the page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from windtunnel.program.program import Notice, NoticeKind
from windtunnel.report.text_table import plain

HEADINGS = {
    NoticeKind.PRETENDED: "Pretended (CUDA names answered by this card)",
    NoticeKind.ASSUMED: "Assumed (values that do not exist without data)",
    NoticeKind.DRAWN: "Drawn (expert indices)",
    NoticeKind.UNPRICED: "Unpriced (no cost model: from their bytes)",
    NoticeKind.FALLBACK: "Slower path (the chip has no faster one)",
    NoticeKind.SKIPPED: "Left out of the recording",
}
FOLD_AFTER = 5


def by_kind(notices: Iterable[Notice]) -> list[tuple[NoticeKind, list[Notice]]]:
    """Notices by kind in the order of ``NoticeKind``; equal ones added up, most frequent first."""
    counts: dict[tuple[NoticeKind, str, str], int] = {}
    for notice in notices:
        key = (notice.kind, notice.what, notice.line)
        counts[key] = counts.get(key, 0) + notice.count
    merged = [Notice(kind, what, line, count) for (kind, what, line), count in counts.items()]
    merged.sort(key=lambda notice: (-notice.count, notice.line, notice.what))
    kinds = [(kind, [notice for notice in merged if notice.kind is kind]) for kind in NoticeKind]
    return [(kind, members) for kind, members in kinds if members]


def lines(notices: Iterable[Notice], width: int, fold: bool = True) -> list[str]:
    """Notices as text, per source line; long lists folded unless asked otherwise."""
    result = []
    for kind, members in by_kind(notices):
        shown = members[:FOLD_AFTER] if fold and len(members) > FOLD_AFTER + 1 else members
        result.append(f" {HEADINGS[kind]}")
        for notice in shown:
            result += wrapped(_sentence(notice), width, "   ")
        if len(members) > len(shown):
            result.append(f"   and {len(members) - len(shown)} more: `windtunnel report` lists them all")
    return result


def paragraphs(heading: str, texts: Iterable[str], width: int) -> list[str]:
    """A heading and its texts, wrapped; nothing at all when there are none."""
    result = [piece for text in texts for piece in wrapped(plain(text), width, "   ")]
    return [f" {heading}", *result] if result else []


def _sentence(notice: Notice) -> str:
    place = f"{plain(notice.line)}: " if notice.line else ""
    times = f" (×{notice.count:,})" if notice.count > 1 else ""
    return f"{place}{plain(notice.what)}{times}"


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Text as lines of at most ``width`` letters; what has no space in it stays whole."""
    return textwrap.wrap(
        text,
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
