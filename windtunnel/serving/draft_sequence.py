"""A request that drafts tokens, and what a step does for it."""

from __future__ import annotations

from typing import NamedTuple

from windtunnel.serving.sequence import Sequence


class DraftingSequence(Sequence):
    """One request. ``computed`` counts as if all drafts under way were accepted.

    Attributes:
        promised: tokens that steps under way may bring. drafts: tokens drafted for its next step. in_flight: tokens in
            steps that are not over; ``stale`` of them from before a preemption. checks: steps with drafts so far.
            place: order of admission.
    """

    __slots__ = ("checks", "drafts", "in_flight", "place", "promised", "stale")

    def begin(self) -> None:
        """Nothing under way."""
        self.promised = self.drafts = self.in_flight = self.stale = self.checks = self.place = 0


class Part(NamedTuple):
    """What a step does for one sequence: ``new`` tokens, ``drafts`` of them drafted, ``kept`` of those accepted.

    ``samples``: whether it brings a token.
    """

    sequence: DraftingSequence
    new: int
    drafts: int
    kept: int
    samples: bool
