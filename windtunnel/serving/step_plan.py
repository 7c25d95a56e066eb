"""What an engine decided for one step. Tuples, since replays make a hundred thousand of them a second."""

from __future__ import annotations

from typing import NamedTuple

from windtunnel.serving.sequence import Sequence


class Chunk(NamedTuple):
    """``new`` tokens of one prompt after ``context`` tokens; ``ends`` when the prompt is then complete."""

    new: int
    context: int
    ends: bool
    sequence: Sequence


class StepPlan(NamedTuple):
    """What one step computes: ``decodes`` sequences with ``contexts`` tokens in all, and prompt chunks.

    Attributes:
        loaded_s: when cache from slower tiers is there that the step needs, layer by layer.
        ends: sequences that are done when the step is. stalls: whether decoding sequences stand by.
        decoded: the sequences that decode, where the scheduler ``lists_decoded``.
    """

    decodes: int
    contexts: int
    chunks: tuple[Chunk, ...]
    loaded_s: float = 0.0
    ends: tuple[Sequence, ...] = ()
    stalls: bool = False
    decoded: tuple[Sequence, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing runs."""
        return not self.decodes and not self.chunks

    @property
    def steady(self) -> bool:
        """Whether it only decodes, and nobody is done after it."""
        return self.decodes > 0 and not self.chunks and not self.ends


NOTHING = StepPlan(0, 0, ())
