"""Steps with checks of drafted tokens under SGLang's rules, and the sequences in them."""

from __future__ import annotations

from typing import NamedTuple

from windtunnel.serving.radix_pool import RadixSequence
from windtunnel.serving.radix_tree import Segments, first, tail
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import Chunk


class CheckedSequence(RadixSequence):
    """``allocated``: tokens that it has room for. ``checks``: begun so far. ``computed`` counts those that are over."""

    __slots__ = ("allocated", "checks")
    allocated: int
    checks: int

    def segments(self, tokens: int) -> Segments:
        """What its first ``tokens`` tokens are to the tree: each with the one after it."""
        return first(tail(super().segments(tokens), 1), tokens - 1)

    def keyable(self, tokens: int) -> int:
        """How many of its first ``tokens`` the tree can know."""
        return max(0, tokens - 1)


class Check(NamedTuple):
    """One sequence in a step without prompts, ``kept`` of its drafts accepted."""

    sequence: CheckedSequence
    kept: int


class Step(NamedTuple):
    """A step that was decided. ``mixed``: sequences that decode by one token beside its prompts."""

    chunks: tuple[Chunk, ...]
    mixed: tuple[CheckedSequence, ...]
    checks: tuple[Check, ...]

    def sequences(self) -> set[Sequence]:
        """All that take part."""
        return {*(one.sequence for one in self.chunks), *self.mixed, *(one.sequence for one in self.checks)}


NO_STEP = Step((), (), ())
