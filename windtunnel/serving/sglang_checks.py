"""Steps with checks of drafted tokens under SGLang's rules, and the sequences in them."""

from __future__ import annotations

from typing import NamedTuple

from windtunnel.serving.segments import Segments, first, tail
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_states import StateSequence
from windtunnel.serving.step_plan import Chunk


class CheckedSequence(StateSequence):
    """``allocated``: tokens that it has room for. ``checks``: begun so far. ``computed`` counts those that are over.

    ``pairs``: whether the tree knows a token only with the one after it. ``earlier``: where the state before
    ``tracked`` is.
    """

    __slots__ = ("allocated", "checks", "earlier", "pairs")

    def begin_checks(self, pairs: bool) -> None:
        """Nothing computed yet."""
        self.pairs = pairs
        self.allocated = self.checks = 0
        self.reset()

    def reset(self) -> None:
        """No state held."""
        super().reset()
        self.earlier = 0

    def segments(self, tokens: int) -> Segments:
        """What its first ``tokens`` tokens are to the tree."""
        found = super().segments(tokens)
        return first(tail(found, 1), tokens - 1) if self.pairs else found

    def keyable(self, tokens: int) -> int:
        """How many of its first ``tokens`` the tree can know."""
        return max(0, tokens - self.pairs)


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
