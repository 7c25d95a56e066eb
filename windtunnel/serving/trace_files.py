"""Rows of a trace file: CSV, JSON lines or one JSON document, plain or compressed, from a file or standard input.

Every line stands alone, so that a broken one takes no other with it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO, cast

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"
Row = Mapping[str, object]
LeftOut = Callable[[int, str], None]
"""Told of a line that is left out: its number, and why."""


def title_of(path: Path) -> str:
    """What messages call the file."""
    return "standard input" if str(path) == STANDARD_INPUT else path.name


def rows(path: Path, left_out: LeftOut) -> Iterator[tuple[int, Row]]:
    """Line and content of every row that can be read. Raises OSError, EOFError or zlib.error from where it cannot."""
    name = path.name.removesuffix(".gz")
    with _opened(path) as file:
        lines = enumerate(file, 1)
        first = next(((line, text) for line, text in lines if text.strip()), None)
        if first is None:
            return
        kept = chain([first], lines)
        start = first[1].lstrip()[0]
        if name.endswith(".csv") or (start not in "[{" and not name.endswith((".json", ".jsonl"))):
            yield from _table(kept)
        elif start == "[" or (start == "{" and not name.endswith(".jsonl") and _unfinished(first[1])):
            yield from _document("".join(text for _, text in kept), left_out)
        else:
            yield from _json_lines(kept, left_out)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    whole = sys.stdin.buffer if str(path) == STANDARD_INPUT else path.open("rb")
    try:
        raw = cast("io.BufferedReader", whole)
        packed = raw.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
        plain = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw
        # a byte order mark is no part of the first column's name
        yield io.TextIOWrapper(plain, encoding="utf-8-sig", errors="replace", newline="")
    finally:
        if whole is not sys.stdin.buffer:
            whole.close()


def _table(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Row]]:
    header: list[str] = []
    for line, text in lines:
        fields = next(csv.reader([text.rstrip("\r\n")]), [])
        if not header:
            header = [name.strip() for name in fields]
        elif text.strip():
            yield line, dict(zip(header, fields, strict=False))


def _document(text: str, left_out: LeftOut) -> Iterator[tuple[int, Row]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        left_out(1, f"no JSON: {error}")
        return
    for place, entry in enumerate(entries if isinstance(entries, list) else [entries], 1):
        if isinstance(entry, dict):
            yield place, entry
        else:
            left_out(place, "not an object")


def _json_lines(lines: Iterator[tuple[int, str]], left_out: LeftOut) -> Iterator[tuple[int, Row]]:
    for line, text in lines:
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            left_out(line, f"no JSON: {error}")
            continue
        if isinstance(row, dict):
            yield line, row
        else:
            left_out(line, "not an object")


def _unfinished(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return True
    return False
