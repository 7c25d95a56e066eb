"""A replica in virtual time: one scheduler, or several that step together (data-parallel attention).

Ranks of a replica start every step together and wait for the slowest, because each layer exchanges tokens
between their experts; a rank without work takes part with a dummy batch. The experts themselves are shared: they
compute what all ranks send, however uneven that is. ``attention_dp`` may put prompts off until they come together.
A step starts when the previous one ended. Engines that run ahead (``async_scheduling``) decide it when the previous
one starts: that hides their own time between steps, and who comes during a step waits for the end of the next.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from windtunnel.serving.attention_dp import AttentionDpBalance
from windtunnel.serving.cache_parts import CachePart, ready
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.steady import slowest, starting_before
from windtunnel.serving.step_plan import NOTHING, StepPlan
from windtunnel.serving.step_seconds import StepSeconds
from windtunnel.serving.tally import Tally

STRIDE = 128
"""Most steady steps taken at once; the gaps between their tokens are kept as one, their mean."""


class Replica(Tally):
    """One copy of the model. ``number`` names it in results; ``parts``: what of prompts could leave, where wanted."""

    def __init__(
        self,
        ranks: Seq[Scheduler],
        step: StepSeconds,
        number: int = 0,
        balance: AttentionDpBalance | None = None,
    ) -> None:
        super().__init__(ranks, number)
        self.balance = balance
        self.ahead = self.ranks[0].options.async_scheduling
        self.step = step
        self.parts: list[CachePart] | None = None

    def add(self, request: Request, shipped: bool = False) -> Scheduler:
        """Queue a request on the rank with the fewest tokens to hold; ``shipped``: with its cache."""
        rank = min(self.ranks, key=_load) if len(self.ranks) > 1 else self.ranks[0]
        rank.add(request, shipped)
        return rank

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return any(rank.busy for rank in self.ranks)

    def advance(self, until_s: float) -> None:
        """Start every step that starts before ``until_s``; an idle replica waits there."""
        while self.now_s < until_s:
            if not self._steady(until_s) and not self._step() and not self._sleep(until_s):
                break
        if self.now_s >= until_s or self.busy:
            return
        if self.used_blocks and any(self.used_blocks[-1][1:]):
            self.used_blocks.append((self.now_s, 0, 0, 0))
        if until_s < float("inf"):
            self.now_s = until_s

    def turn(self, until_s: float) -> bool:
        """One step, or steady ones that start before ``until_s``; False when nothing can run."""
        return self._steady(until_s) or self._step() or self._sleep(until_s)

    def advance_to_next_answer(self) -> None:
        """Step until a request is answered, or nothing can run."""
        answered = len(self.served)
        while self.busy and len(self.served) == answered:
            if not self._steady(float("inf")) and not self._step() and not self._sleep(float("inf")):
                return

    def advance_to_answer(self, until_s: float) -> bool:
        """Step until a request is answered or ``until_s`` is reached, once at least; whether anything ran."""
        answered, began_s = len(self.served), self.now_s
        if until_s <= began_s:
            return self._step()
        while self.now_s < until_s and self.busy and len(self.served) == answered:
            if not self._steady(until_s) and not self._step() and not self._sleep(until_s):
                break
        return self.now_s > began_s

    def _steady(self, until_s: float) -> bool:
        """Steps that only decode, while nothing else can change; whether there were any."""
        rank = self._lone
        if rank is None:
            return self._steady_together(until_s)
        if self.ahead:
            plan = rank.decided
            if plan is None or plan.chunks or plan.ends or not plan.decodes:
                return False
            decodes, contexts = plan.decodes, plan.contexts
        else:
            decodes, contexts = rank.decodes, rank.contexts
        taken = rank.steady(STRIDE)
        if not taken:
            return False
        if self._stalled_s:
            return self._step()
        first, more, most = self.step.decode_line(decodes, contexts)
        taken = starting_before(until_s - self.now_s, first, more, taken if taken < most else most)
        rank.advance(taken)
        self._count_steady(taken, taken * first + more * (taken * (taken - 1) // 2), decodes)
        return True

    def _steady_together(self, until_s: float) -> bool:
        """The same for a replica of several ranks."""
        most, lines, tokens = STRIDE, [], 0
        for rank in self.ranks:
            if rank.busy:
                if self.ahead and (rank.decided is None or not rank.decided.steady):
                    return False
                most = rank.steady(most)
                if not most:
                    return False
                decodes, contexts = rank.decodes, rank.contexts
                if self.ahead:
                    decodes, contexts = rank.decided.decodes, rank.decided.contexts  # type: ignore[union-attr]
                lines.append(self.step.decode_line(decodes, contexts))
                tokens += decodes
        if not lines:
            return False
        if self._stalled_s:
            return self._step()
        first, more, most = slowest(lines, most)
        taken = starting_before(until_s - self.now_s, first, more, most)
        for rank in self.ranks:
            if rank.busy:
                rank.advance(taken)
        if self.balance is not None:
            self.balance.passed(taken)
        self._count_steady(taken, taken * first + more * (taken * (taken - 1) // 2), tokens)
        return True

    def _step(self) -> bool:
        """One step of all ranks; False when nobody can run anything."""
        rank = self._lone
        if rank is None or self.parts is not None:
            return self._step_together()
        plan = rank.decided
        if plan is None:  # or the engine does not run ahead
            plan = rank.schedule(self.now_s)
            if plan.empty:
                return False
            if self.ahead and rank.waits_s > self.now_s:
                self.now_s = rank.waits_s  # who comes while the engine waits is seen by its next decision
                return True
        if self.ahead:
            rank.schedule(self.now_s)
        seconds = self._rank_seconds(rank, plan, bool(plan.chunks))
        if rank.tiers is not None and rank.held_s > self.now_s:
            seconds = seconds + rank.held_s - self.now_s
        self.now_s += seconds
        for sequence in rank.complete(plan, self.now_s):
            self.served.append(self.told(sequence))
        for chunk in plan.chunks:
            self.prompt_tokens += chunk.new
        self._count(plan.decodes, plan.stalls, seconds)
        return True

    def _step_together(self) -> bool:
        """The same for a replica of several ranks, or one that is asked what could leave."""
        plans = self.decide(self.now_s)
        if not plans:
            return False
        seconds = self.step_seconds(plans)
        if self.parts is not None:
            after = [rank.decided or NOTHING for rank in self.ranks] if self.ahead else []
            page = self.ranks[0].options.block_size
            self.parts += ready(plans, after, self.now_s, self.now_s + seconds, page)
        self.now_s += seconds
        for rank, plan in zip(self.ranks, plans, strict=True):
            for sequence in rank.complete(plan, self.now_s):
                self.served.append(self.told(sequence))
        self.count(plans, seconds)
        return True

    def decide(self, now_s: float) -> list[StepPlan]:
        """What every rank does in the step that starts now; nothing when nobody can run anything."""
        plans, empty = [], True
        for rank in self.ranks:
            plan = rank.decided or NOTHING
            plans.append(plan)
            empty = empty and plan is NOTHING
        if empty:  # or the engine does not run ahead
            if self.balance is not None:
                wait = self.balance.puts_off(self.ranks)
                for rank in self.ranks:
                    rank.puts_off_prompts = wait
            plans = [rank.schedule(now_s) for rank in self.ranks]
            if all(plan.empty for plan in plans):
                return []
        if self.ahead:
            for rank in self.ranks:
                rank.schedule(now_s)
        return plans

    def _sleep(self, until_s: float) -> bool:
        """Wait for cache on its way from a slower tier; False when none is."""
        wakes_s = min(rank.wakes_s for rank in self.ranks)
        if wakes_s == float("inf"):
            return False
        self.now_s = max(self.now_s, min(wakes_s, until_s))
        return True

    def step_seconds(self, plans: Seq[StepPlan]) -> float:
        """How long one step of all ranks takes: the slowest rank's own part, and the experts for what all send."""
        mixed = any(plan.chunks for plan in plans)
        tokens = [self._tokens(plan) for plan in plans] if mixed and len(plans) > 1 else []
        uneven = bool(tokens) and max(tokens) > min(tokens)
        shared_s = self.step.experts_s(sum(tokens) / len(tokens)) if uneven else 0.0
        longest = held_s = 0.0
        for number, (rank, plan) in enumerate(zip(self.ranks, plans, strict=True)):
            less_s = self.step.experts_s(tokens[number]) - shared_s if uneven else 0.0
            longest = max(longest, self._rank_seconds(rank, plan, mixed, less_s))
            held_s = max(held_s, rank.held_s)
        return longest + held_s - self.now_s if held_s > self.now_s else longest

    def _tokens(self, plan: StepPlan) -> int:
        """Tokens that a rank computes in a step, that of a made-up answer at least."""
        drafted = self.ranks[0].options.num_speculative_tokens
        return max(1, plan.decodes * (1 + drafted) + sum(chunk.new for chunk in plan.chunks))

    def _rank_seconds(self, rank: Scheduler, plan: StepPlan, mixed: bool, less_s: float = 0.0) -> float:
        """How long one rank takes; ``mixed``: somebody computes prompts.

        ``less_s``: seconds by which its own tokens would take the experts longer than those of all ranks.
        """
        step, decodes, contexts, chunks = self.step, plan.decodes, plan.contexts, plan.chunks
        if mixed or rank.bursts:
            priced = step.whole_s if rank.bursts else step.mixed_s
            seconds = priced(decodes, contexts, [(chunk.new, chunk.context) for chunk in chunks]) - less_s
            for chunk in chunks:
                request = chunk.sequence.request
                if request.images:
                    seconds += step.images_s(request, chunk.context, chunk.context + chunk.new)
        else:
            seconds = step.decode_s(decodes, contexts) if decodes else 0.0
        if rank.tiers is None:  # no cache is on its way
            return seconds
        loading_s = max(plan.loaded_s, rank.noted_s) - self.now_s
        return loading_s if loading_s > seconds else seconds


def _load(rank: Scheduler) -> int:
    return len(rank.running) + 4 * rank.queued
