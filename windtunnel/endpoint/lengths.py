"""How long answers are when clients leave it open: drawn around a mean, or from lengths that a trace recorded.

Nothing but the prompt and the seed decide the draw, so both engines give the same lengths, every day.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.endpoint.text import drawn
from windtunnel.serving.trace_readers import read_trace

MEAN_OUTPUT = 150.0
"""Tokens of an answer of the recorded agents, about."""
SHORTEST, LONGEST = 8, 1 << 15


@dataclass(frozen=True, slots=True)
class AnswerLengths:
    """``recorded`` lengths where there are any, each as likely; else exponential around ``mean``."""

    mean: float = MEAN_OUTPUT
    recorded: Sequence[int] = ()

    @classmethod
    def told(cls, mean: float, trace: str) -> AnswerLengths:
        """From options: a mean (0: the usual one) or a trace file. Raises E651 to E656 as traces do."""
        recorded = (
            tuple(request.output_tokens for request in read_trace(Path(trace)).requests) if trace else ()
        )
        return cls(mean or MEAN_OUTPUT, recorded)

    def draw(self, prompt: str, draw: int = 0) -> int:
        """Tokens of the ``draw``-th answer to ``prompt``; several have lengths of their own."""
        whole = drawn(prompt, draw).encode("utf-8", "surrogatepass")
        seed = hashlib.blake2b(whole, digest_size=8).hexdigest()
        source = random.Random(seed)
        if self.recorded:
            return max(1, source.choice(self.recorded))
        return SHORTEST + min(LONGEST, int(source.expovariate(1 / max(1.0, self.mean - SHORTEST))))
