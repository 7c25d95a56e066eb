"""When requests come and how long they are, drawn with a seed; or taken from a trace and stretched.

``gamma`` is vLLM's benchmark's burstiness: gaps of a gamma distribution with that shape (1: Poisson, smaller:
burstier). ``ramp`` raises the rate linearly from nothing to twice the mean.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate

from windtunnel.serving.request import Request
from windtunnel.serving.sessions import in_sessions

KEY_TOKENS = 16
"""Tokens behind one key of drawn prompts."""


class Arrivals(StrEnum):
    """Patterns of arrival."""

    POISSON = "poisson"
    GAMMA = "gamma"
    CONSTANT = "constant"
    RAMP = "ramp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Prompt and output tokens.

    Attributes:
        spread: lengths are drawn evenly from ``length × (1 − spread)`` to ``length × (1 + spread)``.
        prefix: tokens that all prompts begin with, before their own.
    """

    prompt: int
    output: int
    spread: float = 0.0
    prefix: int = 0

    def draw(self, source: random.Random) -> tuple[int, int]:
        """Own prompt tokens and output tokens of one request."""
        return self._one(self.prompt, source), self._one(self.output, source)

    def _one(self, length: int, source: random.Random) -> int:
        if not self.spread:
            return length
        return max(1, source.randint(round(length * (1 - self.spread)), round(length * (1 + self.spread))))


def drawn(
    count: int, lengths: Lengths, *, rate: float = 0.0, pattern: Arrivals = Arrivals.POISSON,
    burstiness: float = 1.0, seed: int = 0,
) -> list[Request]:  # fmt: skip
    """``count`` requests; ``rate`` in requests a second, 0: all at once."""
    gaps = _gaps(count, rate, pattern, burstiness, random.Random(f"arrivals {seed}"))
    source = random.Random(f"lengths {seed}")
    shared = tuple(-1 - index for index in range(lengths.prefix // KEY_TOKENS))
    now, requests = 0.0, []
    for number, gap in enumerate(gaps):
        now += gap
        own, output = lengths.draw(source)
        prompt = lengths.prefix + own
        keys: tuple[int, ...] = ()
        if shared:
            first = (number + 1) << 24
            keys = shared + tuple(range(first, first - (-prompt // KEY_TOKENS) - len(shared)))
        requests.append(Request(number, now, prompt, output, keys, KEY_TOKENS if keys else 0))
    return requests


def at_rate(
    requests: Sequence[Request], rate: float, *, pattern: Arrivals = Arrivals.POISSON, burstiness: float = 1.0,
    seed: int = 0,
) -> list[Request]:  # fmt: skip
    """The same requests in their order, arriving at ``rate`` a second: for traces of lengths alone.

    Of sessions the first calls come at that rate; the others keep their distance.
    """
    begins: dict[str | int, float] = {}
    if in_sessions(requests):
        for one in requests:
            begins.setdefault(one.session or one.number, one.arrival_s)
    else:
        begins = {one.number: one.arrival_s for one in requests}
    gaps = _gaps(len(begins), rate, pattern, burstiness, random.Random(f"arrivals {seed}"))
    moved = dict(zip(begins, accumulate(gaps), strict=True))
    found = []
    for one in requests:
        session = one.number if one.number in moved else one.session
        found.append(replace(one, arrival_s=moved[session] + (one.arrival_s - begins[session])))
    return found


def _gaps(
    count: int, rate: float, pattern: Arrivals, burstiness: float, source: random.Random
) -> Iterator[float]:
    if not rate:
        yield from (0.0 for _ in range(count))
    elif pattern is Arrivals.CONSTANT:
        yield from (1 / rate for _ in range(count))
    elif pattern is Arrivals.RAMP:
        span, before = count / rate, 0.0
        for number in range(1, count + 1):
            at = span * (number / count) ** 0.5
            yield at - before
            before = at
    else:
        shape = burstiness if pattern is Arrivals.GAMMA else 1.0
        yield from (source.gammavariate(shape, 1 / (rate * shape)) for _ in range(count))


def stretched(requests: Iterable[Request], speed: float) -> list[Request]:
    """The same requests arriving ``speed`` times as fast, the pauses of sessions as much shorter."""
    return [
        replace(
            request, arrival_s=request.arrival_s / speed,
            follows=request.follows and request.follows.faster(speed),
        )
        for request in requests
    ]  # fmt: skip
