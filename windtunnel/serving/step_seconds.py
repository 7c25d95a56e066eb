"""What an engine asks a deployment: how long its steps take."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from windtunnel.serving.request import Request


class StepSeconds(Protocol):
    """What an engine needs to know about a deployment."""

    def decode_s(self, decodes: int, contexts: int) -> float:
        """A step of ``decodes`` sequences with ``contexts`` tokens in all, and nothing else."""
        ...

    def decode_line(self, decodes: int, contexts: int) -> tuple[float, float, int]:
        """Seconds of such a step, how much longer every following one is, and for how many that holds."""
        ...

    def mixed_s(self, decodes: int, contexts: int, chunks: Seq[tuple[int, int]]) -> float:
        """A step that also computes prompt chunks of (new tokens, context)."""
        ...

    def whole_s(self, decodes: int, contexts: int, chunks: Seq[tuple[int, int]]) -> float:
        """A step that checks drafts, however many tokens come out."""
        ...

    def images_s(self, request: Request, first: int, end: int) -> float:
        """The vision tower on the images of a prompt that begin at its tokens ``first`` to ``end``."""
        ...

    def experts_s(self, tokens: float) -> float:
        """Of a step with prompts: the experts that all ranks share, for ``tokens`` tokens of each rank."""
        ...


@dataclass(frozen=True, slots=True)
class Scaled:
    """Steps that take ``factor`` times as long: an end of an interval."""

    step: StepSeconds
    factor: float

    def decode_s(self, decodes: int, contexts: int) -> float:
        """See ``StepSeconds``."""
        return self.factor * self.step.decode_s(decodes, contexts)

    def decode_line(self, decodes: int, contexts: int) -> tuple[float, float, int]:
        """See ``StepSeconds``."""
        first, more, steps = self.step.decode_line(decodes, contexts)
        return self.factor * first, self.factor * more, steps

    def mixed_s(self, decodes: int, contexts: int, chunks: Seq[tuple[int, int]]) -> float:
        """See ``StepSeconds``."""
        return self.factor * self.step.mixed_s(decodes, contexts, chunks)

    def whole_s(self, decodes: int, contexts: int, chunks: Seq[tuple[int, int]]) -> float:
        """See ``StepSeconds``."""
        return self.factor * self.step.whole_s(decodes, contexts, chunks)

    def images_s(self, request: Request, first: int, end: int) -> float:
        """See ``StepSeconds``."""
        return self.factor * self.step.images_s(request, first, end)

    def experts_s(self, tokens: float) -> float:
        """See ``StepSeconds``."""
        return self.factor * self.step.experts_s(tokens)
