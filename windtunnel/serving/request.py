"""A request as traffic brings it, and what serving it came to. Plain data.

Prompts are known by their block keys: two prompts share a prefix where their leading keys are equal. Keys are
chained (a key stands for its block and everything before it), as the hash ids of published traces are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_PLACES = 24
"""Bits for the number of a block behind a key."""


@dataclass(frozen=True, slots=True)
class Follows:
    """What a call of a session waits for: the answers to ``calls``, by their numbers, and then ``gap_s``.

    ``gap_s``: from the last of these answers to the call (thinking, tools). None where traffic says only when it was
    sent: then at its time of arrival, or when it has been answered, whichever is later.
    """

    calls: tuple[int, ...]
    gap_s: float | None

    def faster(self, speed: float) -> Follows:
        """The same with a gap that is ``speed`` times as short."""
        return self if self.gap_s is None else Follows(self.calls, self.gap_s / speed)


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a client.

    Attributes:
        number: position in the traffic, unique.
        arrival_s: when it reaches the server. prompt_tokens, output_tokens: lengths, at least 1.
        keys: chained keys of the prompt's blocks of ``key_tokens`` tokens, the last one possibly part-filled;
            empty where nothing is known to be shared.
        session: requests of one conversation have the same name.
        images: patches of every image, in order; their tokens are counted in the prompt and lie at its end, newest
            last, as agents send screenshots.
        spans: the keys in stretches, each by its first key and how many: all traffic at hand that has one key of a
            stretch has all of it (``with_spans``). Empty: every key by itself.
        follows: what it waits for; its time of arrival is then the recorded one. None: it comes when it comes.
    """

    number: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    keys: tuple[int, ...] = ()
    key_tokens: int = 0
    session: str = ""
    images: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    follows: Follows | None = None

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise ValueError(f"request {self.number} needs at least one token in and one out")
        if self.arrival_s < 0:
            raise ValueError(f"request {self.number} arrives before the start")

    @property
    def last_tokens(self) -> int:
        """Tokens in the cache when the last one comes out (it is not computed itself)."""
        return self.prompt_tokens + self.output_tokens - 1

    def images_between(self, first: int, end: int, merge: int) -> tuple[int, ...]:
        """Patches of the images that begin at tokens ``first`` to ``end``; ``merge`` patches are one token."""
        place, found = self.prompt_tokens, []
        for patches in reversed(self.images):
            place = max(0, place - patches // merge)
            if place < first:
                break
            if place < end:
                found.append(patches)
        return tuple(found)

    def runs(self, block_tokens: int, lookahead: int = 0) -> tuple[tuple[int, int], ...]:
        """Keys of the prompt's full blocks of ``block_tokens``, each with how many blocks carry it.

        Where blocks do not divide the traffic's own, a block is known by the first of those that holds its end.
        Empty where nothing can be shared. ``lookahead``: tokens after a block that its key covers, too.
        """
        full, known = self.prompt_tokens // block_tokens, self.key_tokens
        if not self.keys:
            return ()
        if lookahead:
            full = (self.prompt_tokens - lookahead) // block_tokens
            if self.spans and not known % block_tokens:
                return self._looking_ahead(block_tokens, lookahead, full)
            ends = range(block_tokens, full * block_tokens + 1, block_tokens)
            at = [(end + lookahead - 1) // known for end in ends]
            if known % block_tokens:
                return tuple((self.keys[p] << _PLACES | i, 1) for i, p in enumerate(at) if p < len(self.keys))
            counts = Counter(p for p in at if p < len(self.keys))
            return tuple((self.keys[p], count) for p, count in counts.items())
        if known % block_tokens:
            ends = range(block_tokens, full * block_tokens + 1, block_tokens)
            places = [(-(-end // known) - 1, index) for index, end in enumerate(ends)]
            return tuple((self.keys[p] << _PLACES | i, 1) for p, i in places if p < len(self.keys))
        parts = known // block_tokens
        if self.spans:
            cut, left = [], full
            for key, count in self.spans:
                size = count * parts
                if size >= left:
                    if left:
                        cut.append((key, left))
                    break
                cut.append((key, size))
                left -= size
            return tuple(cut)
        whole, rest = divmod(full, parts)
        runs = [(key, parts) for key in self.keys[:whole]]
        if rest and whole < len(self.keys):
            runs.append((self.keys[whole], rest))
        return tuple(runs)

    def _looking_ahead(self, block_tokens: int, lookahead: int, full: int) -> tuple[tuple[int, int], ...]:
        """Of each stretch of keys, the blocks whose last token that counts lies in it."""
        found, done, end = [], 0, 0
        for key, count in self.spans:
            end += count * self.key_tokens
            blocks = min(full, (end - lookahead) // block_tokens)
            if blocks > done:
                found.append((key, blocks - done))
                done = blocks
        return tuple(found)


def with_spans(requests: Sequence[Request]) -> list[Request]:
    """The same requests, their keys in stretches that always come together."""
    stretches: dict[int, tuple[int, ...]] = {}
    for request in requests:
        _enter(request.keys, stretches)
    found = []
    for request in requests:
        if keys := request.keys:
            spans, place = [], 0
            while place < len(keys):
                key = keys[place]
                size = len(stretches.get(key, (key,)))  # a key that files do not chain stands for itself
                spans.append((key, size))
                place += size
            request = Request(
                request.number, request.arrival_s, request.prompt_tokens, request.output_tokens, keys,
                request.key_tokens, request.session, request.images, tuple(spans), request.follows,
            )  # fmt: skip
        found.append(request)
    return found


def _enter(keys: tuple[int, ...], stretches: dict[int, tuple[int, ...]]) -> None:
    """Cut the stretches known so far, by their first keys, where these keys part from them, and add what is new.

    Keys are chained, so that who has the last of a stretch has all of it, and the place where two part is found by
    halves: this costs by stretches, where looking at every key took a quarter longer.
    """
    place, last = 0, len(keys)
    while place < last:
        known = stretches.get(keys[place])
        if known is None:
            stretches[keys[place]] = keys[place:]
            return
        end = place + len(known)
        if end > last or keys[end - 1] != known[-1]:
            same, apart = 1, min(len(known), last - place) + 1  # so many are the same, so many are not
            while apart - same > 1:
                middle = (same + apart) // 2
                if keys[place + middle - 1] == known[middle - 1]:
                    same = middle
                else:
                    apart = middle
            if same < len(known):
                stretches[keys[place]], stretches[known[same]] = known[:same], known[same:]
            end = place + same
        place = end


class Served(NamedTuple):
    """What one request saw. Times are seconds after the start of the traffic. A tuple, since it is made in a third of
    the time of a frozen dataclass, twice a request.

    Attributes:
        admitted_s: first time it was part of a step. cached_tokens: of its prompt, found at first admission.
        replica: where it was decoded.
    """

    request: Request
    admitted_s: float
    first_token_s: float
    finished_s: float
    cached_tokens: int
    preemptions: int
    replica: int = 0

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.first_token_s - self.request.arrival_s

    @property
    def e2e_s(self) -> float:
        """Time to the last token."""
        return self.finished_s - self.request.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; None for a single token."""
        tokens = self.request.output_tokens
        return (self.finished_s - self.first_token_s) / (tokens - 1) if tokens > 1 else None
