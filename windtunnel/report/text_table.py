"""Tables for a terminal of known width, in which a number is never cut.

A table that is too wide first narrows its elastic text columns (paths and module names are shortened, notes
wrap), then drops whole columns, the least important first. What is left is printed whole even when it is too
wide still.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.cells import cell_len

GAP = "   "
ELLIPSIS = "…"


class Shorten(StrEnum):
    """What a text column may do when space is short."""

    NEVER = "never"
    HEAD = "head"  # cut the beginning: paths and module names
    TAIL = "tail"  # cut the end
    WRAP = "wrap"  # go on in the next line: notes


@dataclass(frozen=True, slots=True)
class TextColumn:
    """One column. ``rank`` 0 always stays; the highest rank is dropped first."""

    header: str
    right: bool = False
    rank: int = 0
    shorten: Shorten = Shorten.NEVER
    least: int = 12  # cells that a shortened column keeps


def render(columns: Sequence[TextColumn], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Header, rule and rows as lines of at most ``width`` cells wherever that is possible."""
    kept = [index for index, _ in enumerate(columns) if _has_content(index, columns, rows)]
    sizes = [_natural(index, columns, rows) for index in range(len(columns))]
    while _total(kept, sizes) > width and _droppable(kept, columns):
        shrunk = _shrunk(kept, sizes, columns, width)
        if _total(kept, shrunk) <= width:
            break
        kept.remove(_droppable(kept, columns)[0])
    sizes = _shrunk(kept, sizes, columns, width)
    header = _line([column.header for column in columns], kept, sizes, columns)
    body = [_line(line, kept, sizes, columns) for row in rows for line in _wrapped(row, kept, sizes, columns)]
    longest = max(cell_len(line) for line in (header, *body))
    return [header, " " + "─" * max(1, longest - 1), *body]


def bar(fraction: float, cells: int = 10) -> str:
    """A bar of eighths of a cell; something visible for everything above zero."""
    eighths = round(max(0.0, min(1.0, fraction)) * cells * 8)
    if fraction > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def shortened(text: str, size: int, where: Shorten) -> str:
    """``text`` in at most ``size`` cells, with an ellipsis where something was cut."""
    if cell_len(text) <= size or where in (Shorten.NEVER, Shorten.WRAP):
        return text
    letters = list(text)
    while letters and cell_len("".join(letters)) > size - 1:
        letters.pop(0 if where is Shorten.HEAD else -1)
    kept = "".join(letters)
    if where is Shorten.TAIL:
        return kept + ELLIPSIS
    starts_a_piece = text[: len(text) - len(kept)].endswith((".", "/"))
    return ELLIPSIS + (kept if starts_a_piece else _from_separator(kept))


def _from_separator(text: str) -> str:
    """The end of a path from its first whole piece, unless that would cost more than half of it."""
    cuts = [index for index in range(len(text) // 2) if text[index] in "/."]
    return text[cuts[0] :].removeprefix(".") if cuts else text


def plain(text: str) -> str:
    """Text of a user's file on one line: control characters, and with them terminal escapes, made visible."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _has_content(index: int, columns: Sequence[TextColumn], rows: Sequence[Sequence[str]]) -> bool:
    return columns[index].rank == 0 or any(row[index] for row in rows)


def _natural(index: int, columns: Sequence[TextColumn], rows: Sequence[Sequence[str]]) -> int:
    return max([cell_len(columns[index].header), *(cell_len(row[index]) for row in rows)])


def _total(kept: Sequence[int], sizes: Sequence[int]) -> int:
    return 1 + sum(sizes[index] for index in kept) + len(GAP) * (len(kept) - 1)


def _droppable(kept: Sequence[int], columns: Sequence[TextColumn]) -> list[int]:
    """Columns that may go, the first to go first: highest rank, then rightmost."""
    return sorted((index for index in kept if columns[index].rank), key=lambda i: (-columns[i].rank, -i))


def _shrunk(
    kept: Sequence[int], sizes: Sequence[int], columns: Sequence[TextColumn], width: int
) -> list[int]:
    """Sizes with the widest elastic columns cut, one cell at a time, until all fits or none can give."""
    result = list(sizes)
    while _total(kept, result) > width:
        elastic = [
            i for i in kept if columns[i].shorten is not Shorten.NEVER and result[i] > columns[i].least
        ]
        if not elastic:
            break
        result[max(elastic, key=lambda i: result[i])] -= 1
    return result


def _wrapped(
    row: Sequence[str], kept: Sequence[int], sizes: Sequence[int], columns: Sequence[TextColumn]
) -> list[list[str]]:
    """The row as one line, or as several where a cell wraps; the other cells are in the first."""
    cells = []
    for index, text in enumerate(row):
        wraps = index in kept and columns[index].shorten is Shorten.WRAP and cell_len(text) > sizes[index]
        cells.append(_lines(text, sizes[index]) if wraps else [text])
    return [
        [pieces[line] if line < len(pieces) else "" for pieces in cells]
        for line in range(max(len(pieces) for pieces in cells))
    ]


def _lines(text: str, size: int) -> list[str]:
    """Text in lines of ``size`` cells that keep a number and its percent sign together."""
    joined = text.replace(" %", "\u00a0%")
    return [line.replace("\u00a0", " ") for line in textwrap.wrap(joined, size, break_on_hyphens=False)]


def _line(
    cells: Sequence[str], kept: Sequence[int], sizes: Sequence[int], columns: Sequence[TextColumn]
) -> str:
    pieces = []
    for index in kept:
        text = shortened(cells[index], sizes[index], columns[index].shorten)
        padding = " " * (sizes[index] - cell_len(text))
        pieces.append(padding + text if columns[index].right else text + padding)
    return (" " + GAP.join(pieces)).rstrip()
