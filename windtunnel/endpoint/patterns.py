"""A text that a regular expression accepts: the shortest choice at every place, for ``pattern`` of JSON schemas.

Patterns of JSON schemas are ECMAScript's, whose common part Python's parser reads. Look-arounds and references to
groups are not followed.
"""

from __future__ import annotations

import re
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MOST = 4096
"""Letters, however often a pattern repeats."""
_CLASSES = {sre.CATEGORY_DIGIT: "0", sre.CATEGORY_SPACE: " ", sre.CATEGORY_WORD: "a"}
_OTHERS = "a0_ -.!"


def matching(pattern: str, least: int = 0) -> str | None:
    """A text of at least ``least`` letters, where repeats allow it, that ``pattern`` accepts.

    Never searched for, which some patterns make endless: built. None: the pattern has parts that this does not follow.
    """
    try:
        parsed = parser.parse(pattern)
        shortest = _text(parsed, 0)
        return _text(parsed, min(least - len(shortest), MOST)) if len(shortest) < least else shortest
    except (re.error, RecursionError, OverflowError, ValueError):
        return None


def _text(parsed: Any, more: int) -> str:
    """``more``: letters to add by the first repeat that may."""
    out = ""
    for code, value in parsed:
        part, more = _part(code, value, more)
        out += part
        if len(out) > MOST:
            raise ValueError("too long")
    return out


def _part(code: Any, value: Any, more: int) -> tuple[str, int]:
    if code is sre.LITERAL:
        return chr(value), more
    if code is sre.NOT_LITERAL:
        return next(letter for letter in _OTHERS if ord(letter) != value), more
    if code is sre.ANY:
        return "a", more
    if code is sre.IN:
        return _one_of(value), more
    if code in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        low, high, inner = value
        one = _text(inner, 0)
        count = low
        if more and one:
            count = min(int(high), low + -(-more // len(one)))
            more = max(0, more - (count - low) * len(one))
        if count * len(one) > MOST:
            raise ValueError("too long")
        return one * count, more
    if code is sre.SUBPATTERN:
        return _text(value[3], more), 0
    if code is sre.ATOMIC_GROUP:
        return _text(value, more), 0
    if code is sre.BRANCH:
        return _text(value[1][0], more), 0
    if code is sre.AT:
        return "", more
    raise ValueError(f"{code} is not followed")


def _one_of(items: Any) -> str:
    if items[0][0] is not sre.NEGATE:
        code, value = items[0]
        if code is sre.LITERAL:
            return chr(value)
        if code is sre.RANGE:
            return chr(value[0])
        return _CLASSES.get(value, "-")
    return next((letter for letter in _OTHERS if not any(_holds(item, letter) for item in items[1:])), "~")


def _holds(item: Any, letter: str) -> bool:
    code, value = item
    if code is sre.LITERAL:
        return bool(ord(letter) == value)
    if code is sre.RANGE:
        return bool(value[0] <= ord(letter) <= value[1])
    tests = {sre.CATEGORY_DIGIT: letter.isdigit(), sre.CATEGORY_SPACE: letter.isspace()}
    word = letter.isalnum() or letter == "_"
    tests |= {sre.CATEGORY_WORD: word, sre.CATEGORY_NOT_WORD: not word}
    return tests.get(value, not letter.isdigit() if value is sre.CATEGORY_NOT_DIGIT else not letter.isspace())
