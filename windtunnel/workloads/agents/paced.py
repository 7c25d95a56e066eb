"""Step times that are all longer or shorter by one factor: the ends of their interval."""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.serving.engine import StepSeconds


class Paced:
    """``factor`` times the seconds of ``step``."""

    def __init__(self, step: StepSeconds, factor: float) -> None:
        self._step, self._factor = step, factor

    def decode_s(self, decodes: int, contexts: int) -> float:
        """A step of ``decodes`` sequences with ``contexts`` tokens in all."""
        return self._step.decode_s(decodes, contexts) * self._factor

    def decode_line(self, decodes: int, contexts: int) -> tuple[float, float, int]:
        """Seconds of such a step, how much longer every following one is, and for how many that holds."""
        seconds, more, steps = self._step.decode_line(decodes, contexts)
        return seconds * self._factor, more * self._factor, steps

    def mixed_s(self, decodes: int, contexts: int, chunks: Sequence[tuple[int, int]]) -> float:
        """A step that also computes prompt chunks."""
        return self._step.mixed_s(decodes, contexts, chunks) * self._factor
