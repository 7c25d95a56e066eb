"""Cache that left the card, or may leave it: host memory, and storage behind it, each with a size and a speed.

Whatever a prompt's computation or a finished output puts into the card's cache is written through to every tier (the
default of vLLM's and SGLang's offloading); a tier that is full drops what was used least recently, tails before heads.
A prompt is looked up on the card first, then in host memory, then in storage. What storage has is kept in host memory,
too, on its way to the card. Each tier has one queue a direction: reads follow one another, and so do writes, which can
be found once they are there. Counts and times, no contents.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Spans = Iterable[tuple[int, int]]
"""Tokens behind each key, in the order of a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSpec:
    """A tier as data. Rates are those that one rank sees, ``token_bytes`` what it keeps of one token there."""

    name: str
    capacity_tokens: int
    token_bytes: float
    read_bytes_per_s: float
    write_bytes_per_s: float
    latency_s: float = 0.0


class Shelf:
    """What is kept somewhere: ``stored`` − ``dropped`` of at most ``capacity`` tokens. Ranks may share one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.stored = self.dropped = 0
        self._kept: OrderedDict[int, list[tuple[int, float]]] = OrderedDict()

    @property
    def tokens(self) -> int:
        """Tokens in it."""
        return self.stored - self.dropped

    def has(self, key: int, now_s: float) -> int:
        """Tokens of ``key``, from its first on, that can be read now."""
        entry = self._kept.get(key)
        return next((end for end, at_s in reversed(entry) if at_s <= now_s), 0) if entry else 0

    def missing(self, spans: Sequence[tuple[int, int]]) -> int:
        """Tokens of them that are not on it."""
        kept = self._kept
        return sum(max(0, end - kept[key][-1][0]) if key in kept else end for key, end in spans)

    def touch(self, keys: Sequence[int]) -> None:
        """Use keys, heads most recently."""
        for key in reversed(keys):
            if key in self._kept:
                self._kept.move_to_end(key)

    def put(self, spans: Sequence[tuple[int, int]], now_s: float, at_s: float) -> None:
        """Add what is missing, readable from ``at_s`` on, and drop what was used least recently where it is full."""
        for key, end in reversed(spans):
            entry = self._kept.setdefault(key, [])
            have = entry[-1][0] if entry else 0
            if end > have:
                self.stored += end - have
                there = [part for part in entry if part[1] <= now_s][-1:]
                entry[:] = [*there, *(part for part in entry if part[1] > now_s), (end, at_s)]
            self._kept.move_to_end(key)
        while self.tokens > self.capacity:
            key, entry = next(iter(self._kept.items()))
            over, have = self.tokens - self.capacity, entry[-1][0]
            self.dropped += min(over, have)
            if over >= have:
                del self._kept[key]
            else:
                entry[:] = [(min(end, have - over), when) for end, when in entry]


class Tier:
    """One rank's way to a shelf. ``read``, ``written`` and ``asked`` count its tokens."""

    def __init__(self, spec: TierSpec, shelf: Shelf | None = None) -> None:
        self.spec = spec
        self.shelf = shelf or Shelf(spec.capacity_tokens)
        self.asked = self.read = self.written = 0
        self._read_free_s = self._write_free_s = 0.0

    def fetch(self, tokens: int, now_s: float) -> float:
        """Read so many tokens after all that was asked for before; the answer is when they are there."""
        spec = self.spec
        begin = max(now_s, self._read_free_s)
        self._read_free_s = begin + tokens * spec.token_bytes / spec.read_bytes_per_s
        return self._read_free_s + spec.latency_s

    def write(self, spans: Sequence[tuple[int, int]], now_s: float) -> None:
        """Write what is not there yet after all that was written before."""
        fresh = self.shelf.missing(spans)
        self.written += fresh
        begin = max(now_s, self._write_free_s)
        self._write_free_s = begin + fresh * self.spec.token_bytes / self.spec.write_bytes_per_s
        self.shelf.put(spans, now_s, self._write_free_s + self.spec.latency_s)


@dataclass(frozen=True, slots=True)
class Found:
    """What the tiers have of a prompt after the card's part: tokens by tier, and the keys they belong to."""

    tokens: int
    by_tier: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class KvTiers:
    """The tiers of one rank, nearest first. A tier may be shared with other ranks."""

    def __init__(self, tiers: Sequence[Tier], page: int = 1) -> None:
        self.tiers = list(tiers)
        self.page = page  # tokens that move together

    def find(self, spans: Spans, have: int, most: int, now_s: float) -> Found | None:
        """Tokens after the first ``have`` up to ``most`` of a prompt, as far as tiers have them without a gap."""
        counts = [0] * len(self.tiers)
        place, used = 0, []
        for key, size in spans:
            begin, place = place, place + size
            if place <= have:
                continue
            if begin >= most:
                break
            want, at = min(size, most - begin), max(0, have - begin)
            for index, tier in enumerate(self.tiers):
                got = min(tier.shelf.has(key, now_s), want)
                if got > at:
                    counts[index] += got - at
                    at = got
            if at:
                used.append((key, at))
            if at < want or want < size:
                break
        total = sum(counts) // self.page * self.page
        for index in reversed(range(len(counts))):  # what is over a whole page is at the end
            over = min(counts[index], sum(counts) - total)
            counts[index] -= over
        return Found(total, tuple(counts), tuple(used)) if total else None

    def count(self, asked: int) -> None:
        """Note that so many tokens were looked for."""
        for tier in self.tiers:
            tier.asked += asked

    def load(self, found: Found, now_s: float) -> float:
        """Bring it to the card; the answer is when it is there."""
        keys = [key for key, _ in found.spans]
        ready = now_s
        for index, (tier, tokens) in enumerate(zip(self.tiers, found.by_tier, strict=True)):
            tier.shelf.touch(keys)
            if not tokens:
                continue
            tier.read += tokens
            ready = max(ready, tier.fetch(tokens, now_s))
            for nearer in self.tiers[:index]:  # it comes by way of these, and stays there
                ready = max(ready, nearer.fetch(tokens, now_s))
                nearer.shelf.put(found.spans, now_s, ready)
        return ready

    def store(self, spans: Sequence[tuple[int, int]], now_s: float) -> None:
        """Write through what the card holds of a sequence: tokens of each key, from its first on."""
        whole = [(key, size) for key, size in spans if size > 0]
        for tier in self.tiers:
            tier.write(whole, now_s)


def first_tokens(spans: Spans, tokens: int) -> list[tuple[int, int]]:
    """The spans of the first ``tokens`` tokens."""
    found = []
    for key, size in spans:
        if tokens <= 0:
            break
        found.append((key, min(size, tokens)))
        tokens -= size
    return found
