"""Tokens as runs of those behind the traffic's chained keys: cut, compared and counted without looking at each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Segment = tuple[int, int, int]
"""Tokens ``first`` to ``end`` of those behind a key."""
Segments = tuple[Segment, ...]


def rest(segments: Segments, place: int, begin: int) -> Segments:
    """From token ``begin`` of the segment at ``place`` on."""
    if place == len(segments):
        return ()
    key, start, end = segments[place]
    return segments[place:] if begin == start else ((key, begin, end), *segments[place + 1 :])


def length(segments: Iterable[Segment]) -> int:
    """Tokens in all."""
    return sum(end - start for _, start, end in segments)


def first(segments: Segments, tokens: int) -> Segments:
    """The first ``tokens``."""
    for place, (key, start, end) in enumerate(segments):
        size = end - start
        if tokens < size:
            whole = segments[:place]
            return (*whole, (key, start, start + tokens)) if tokens > 0 else whole
        tokens -= size
    return segments


def tail(segments: Segments, tokens: int) -> Segments:
    """All after the first ``tokens``."""
    for place, (key, start, end) in enumerate(segments):
        size = end - start
        if tokens < size:
            rest = segments[place + 1 :]
            return ((key, start + tokens, end), *rest) if tokens else segments[place:]
        tokens -= size
    return ()


def head(segments: Segments, page: int) -> Segments:
    """The first page: what children are known by."""
    key, start, end = segments[0]
    return ((key, start, start + page),) if end - start >= page else first(segments, page)


def aligned(segments: Segments, tokens: int, page: int) -> Segments:
    """The whole pages among the first ``tokens``."""
    have = 0
    for _, start, end in segments:
        have += end - start
    whole = min(tokens, have) // page * page
    return segments if whole == have else first(segments, whole)


def common(one: Sequence[Segment], other: Sequence[Segment], page: int) -> int:
    """Tokens that both begin with, in whole pages."""
    same = 0
    for (key, start, end), (other_key, other_start, other_end) in zip(one, other, strict=False):
        if key != other_key or start != other_start:
            break
        same += min(end, other_end) - start
        if end != other_end:
            break
    return same // page * page
