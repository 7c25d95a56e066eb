"""Reading values of a trace's rows: numbers, times, requests. What cannot be read raises ValueError or KeyError."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from windtunnel.serving.request import Request

Row = Mapping[str, object]


def with_keys(request: Request, keys: tuple[int, ...], tokens: int) -> Request:
    """The request with the keys of its blocks of ``tokens`` tokens, which must cover its prompt."""
    if len(keys) * tokens < request.prompt_tokens - tokens:
        raise ValueError(f"{len(keys)} hash ids for {request.prompt_tokens} tokens of prompt")
    return replace(request, keys=keys, key_tokens=tokens)


def request_of(at_s: float, prompt: object, output: object) -> Request:
    """A request that is not numbered yet; an output of nothing counts as one token."""
    tokens = int(number_of(prompt))
    if tokens < 1:
        raise ValueError(f"{tokens} prompt tokens")
    out = int(number_of(output))
    if out < 0:
        raise ValueError(f"{out} output tokens")
    if at_s < 0:
        raise ValueError(f"arrives at {at_s} s")
    return Request(0, at_s, tokens, max(1, out))


def first_of(row: Row, names: tuple[str, ...]) -> object:
    """The value of the first of these columns that the row has."""
    for name in names:
        if name in row:
            return row[name]
    raise KeyError(names[0])


def number_of(value: object) -> float:
    """A finite number."""
    number = float(cast("str", value))
    if number != number or abs(number) > 1e15:
        raise ValueError(f"not a number: {value}")
    return number


def time_s(value: object) -> float:
    """Seconds, or a date as seconds."""
    try:
        return number_of(value)
    except ValueError:
        return date_s(value)


def date_s(value: object) -> float:
    """A date as seconds, with all of its fraction."""
    text = str(value).strip()
    whole, dot, fraction = text.partition(".")
    moment = datetime.fromisoformat(whole)
    # no zone: UTC, which has no hour twice or never
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    digits = fraction.split("+")[0].rstrip("Z")
    return seconds + (float(f"0.{digits}") if dot and digits else 0.0)


def hash_of(text: str) -> int:
    """A number of a text that is the same in every process."""
    value = 0
    for letter in text.encode():
        value = (value * 1099511628211 + letter + 1) % (1 << 61)
    return value
