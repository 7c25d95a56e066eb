"""What the steps of a replica came to: answers, gaps between tokens, busy seconds, and looks at queue and cache."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

from windtunnel.serving.gaps import Gaps
from windtunnel.serving.request import Served
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import StepPlan

SAMPLE = 64
"""Steps between two looks at queue and cache."""


class Tally:
    """Of the replica ``number`` with these ``ranks``; ``now_s``: its clock."""

    def __init__(self, ranks: Seq[Scheduler], number: int) -> None:
        self.ranks = list(ranks)
        self._lone = self.ranks[0] if len(self.ranks) == 1 else None
        self.number = number
        self.now_s = 0.0
        self.steps = 0
        self.decode_steps = 0
        self._sampled = 0
        self.busy_s = 0.0
        self.prompt_tokens = 0
        self.gaps = Gaps()
        self._stalled_s = 0.0  # prompt steps that decoding sequences waited for (engines that do not mix)
        self.served: list[Served] = []
        self.used_blocks: list[tuple[float, int, int, int]] = []  # time, blocks, running, waiting
        self.watch: Callable[[float], None] | None = None  # told the time every ``SAMPLE`` steps

    @property
    def load(self) -> int:
        """Sequences running and waiting."""
        rank = self._lone
        if rank is not None:
            return len(rank.running) + rank.queued
        return sum(len(rank.running) + rank.queued for rank in self.ranks)

    def count(self, plans: Seq[StepPlan], seconds: float) -> None:
        """Count a step that has just ended."""
        decodes, stalls = 0, False
        for plan in plans:
            decodes += plan.decodes
            stalls |= plan.stalls
            for chunk in plan.chunks:
                self.prompt_tokens += chunk.new
        self._count(decodes, stalls, seconds)

    def _count(self, decodes: int, stalls: bool, seconds: float) -> None:
        """The same of one with so many decoding sequences, its prompts being counted."""
        self.busy_s += seconds
        self.steps += 1
        if decodes:
            self.gaps.seconds.append(seconds + self._stalled_s)
            self.gaps.tokens.append(decodes)
            self._stalled_s = 0.0
            self.decode_steps += 1
        elif stalls:
            self._stalled_s += seconds
        if self.steps >= self._sampled + SAMPLE:
            self._sample()

    def _count_steady(self, steps: int, seconds: float, tokens: int) -> None:
        """Count so many steps that have just ended, each with so many tokens."""
        self.gaps.seconds.append(seconds / steps)
        self.gaps.tokens.append(tokens * steps)
        self.busy_s += seconds
        self.steps += steps
        self.decode_steps += steps
        self.now_s += seconds
        if self.steps >= self._sampled + SAMPLE:
            self._sample()

    def told(self, sequence: Sequence) -> Served:
        """What a request that is done now saw."""
        return Served(
            sequence.request,
            sequence.admitted_s,
            sequence.first_s,
            self.now_s,
            sequence.cached_tokens,
            sequence.preemptions,
            self.number,
        )

    def _sample(self) -> None:
        self._sampled = self.steps
        if self.watch is not None:
            self.watch(self.now_s)
        rank = self._lone
        if rank is not None:
            self.used_blocks.append((self.now_s, rank.pool.used, len(rank.running), rank.queued))
            return
        running = sum(len(rank.running) for rank in self.ranks)
        waiting = sum(rank.queued for rank in self.ranks)
        self.used_blocks.append((self.now_s, sum(rank.pool.used for rank in self.ranks), running, waiting))
