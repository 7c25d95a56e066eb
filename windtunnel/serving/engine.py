"""A replica in virtual time: one scheduler, or several that step together (data-parallel attention).

Ranks of a replica start every step together and wait for the slowest, because each layer exchanges tokens
between their experts; a rank without work takes part with a dummy batch. The experts themselves are shared: they
compute what all ranks send, however uneven that is. ``attention_dp`` may put prompts off until they come together.
A step starts when the previous one ended. Engines that run ahead (``async_scheduling``) decide it when the previous
one starts: that hides their own time between steps, and who comes during a step waits for the end of the next.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from windtunnel.serving.attention_dp import AttentionDpBalance
from windtunnel.serving.request import Request, Served
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import NOTHING, Chunk, StepPlan


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


SAMPLE = 64
"""Steps between two looks at queue and cache."""
STRIDE = 128
"""Most steady steps taken at once; the gaps between their tokens are kept as one, their mean."""


@dataclass(frozen=True, slots=True)
class CachePart:
    """The first ``tokens`` of a prompt's cache, ready to leave ``rank`` at ``at_s``; in whole pages unless ``last``."""

    at_s: float
    number: int
    tokens: int
    rank: int = 0
    last: bool = False


class Replica:
    """One copy of the model. ``number`` names it in results; ``parts``: what of prompts could leave, where wanted."""

    def __init__(
        self,
        ranks: Seq[Scheduler],
        step: StepSeconds,
        number: int = 0,
        balance: AttentionDpBalance | None = None,
    ) -> None:
        self.ranks = list(ranks)
        self.balance = balance
        self._lone = self.ranks[0] if len(self.ranks) == 1 else None
        self.ahead = self.ranks[0].options.async_scheduling
        self.step = step
        self.number = number
        self.now_s = 0.0
        self.steps = 0
        self.decode_steps = 0
        self._sampled = 0
        self.busy_s = 0.0
        self.prompt_tokens = 0
        self.gaps: list[tuple[float, int]] = []  # (seconds, tokens that came after about that long)
        self._stalled_s = 0.0  # prompt steps that decoding sequences waited for (engines that do not mix)
        self.served: list[Served] = []
        self.parts: list[CachePart] | None = None
        self.used_blocks: list[tuple[float, int, int, int]] = []  # time, blocks, running, waiting
        self.watch: Callable[[float], None] | None = None  # told the time every ``SAMPLE`` steps

    def add(self, request: Request, shipped: bool = False) -> Scheduler:
        """Queue a request on the rank with the fewest tokens to hold; ``shipped``: with its cache."""
        rank = min(self.ranks, key=_load) if len(self.ranks) > 1 else self.ranks[0]
        rank.add(request, shipped)
        return rank

    @property
    def load(self) -> int:
        """Sequences running and waiting."""
        if len(self.ranks) == 1:
            rank = self.ranks[0]
            return len(rank.running) + rank.queued
        return sum(len(rank.running) + rank.queued for rank in self.ranks)

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
        if self._lone is not None:
            return self._steady_lone(self._lone, until_s)
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
        first, more, most = _slowest(lines, most)
        taken = _starting_before(until_s - self.now_s, first, more, most)
        for rank in self.ranks:
            if rank.busy:
                rank.advance(taken)
        if self.balance is not None:
            self.balance.passed(taken)
        self._count_steady(taken, taken * first + more * (taken * (taken - 1) // 2), tokens)
        return True

    def _steady_lone(self, rank: Scheduler, until_s: float) -> bool:
        """The same for a replica of one rank."""
        if self.ahead:
            plan = rank.decided
            if plan is None or plan.chunks or plan.ends or not plan.decodes or not rank.busy:
                return False
            decodes, contexts = plan.decodes, plan.contexts
        elif rank.busy:
            decodes, contexts = rank.decodes, rank.contexts
        else:
            return False
        taken = rank.steady(STRIDE)
        if not taken:
            return False
        if self._stalled_s:
            return self._step()
        first, more, most = self.step.decode_line(decodes, contexts)
        taken = _starting_before(until_s - self.now_s, first, more, taken if taken < most else most)
        rank.advance(taken)
        self._count_steady(taken, taken * first + more * (taken * (taken - 1) // 2), decodes)
        return True

    def _count_steady(self, steps: int, seconds: float, tokens: int) -> None:
        """Count so many steps that have just ended, each with so many tokens."""
        self.gaps.append((seconds / steps, tokens * steps))
        self.busy_s += seconds
        self.steps += steps
        self.decode_steps += steps
        self.now_s += seconds
        if self.steps >= self._sampled + SAMPLE:
            self._sample()

    def _step(self) -> bool:
        """One step of all ranks; False when nobody can run anything."""
        if self._lone is not None and self.parts is None:
            return self._step_lone(self._lone)
        plans = self.decide(self.now_s)
        if not plans:
            return False
        seconds = self.step_seconds(plans)
        if self.parts is not None:
            self._ready(plans, seconds)
        self.now_s += seconds
        for rank, plan in zip(self.ranks, plans, strict=True):
            for sequence in rank.complete(plan, self.now_s):
                self.served.append(self.told(sequence))
        self.count(plans, seconds)
        return True

    def _step_lone(self, rank: Scheduler) -> bool:
        """The same for a replica of one rank."""
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
        held_s = rank.held_s
        if held_s > self.now_s:
            seconds = seconds + held_s - self.now_s
        self.now_s += seconds
        for sequence in rank.complete(plan, self.now_s):
            self.served.append(self.told(sequence))
        self.count((plan,), seconds)
        return True

    def count(self, plans: Seq[StepPlan], seconds: float) -> None:
        """Count a step that has just ended."""
        self.busy_s += seconds
        self.steps += 1
        decodes, stalls = 0, False
        for plan in plans:
            decodes += plan.decodes
            stalls |= plan.stalls
            for chunk in plan.chunks:
                self.prompt_tokens += chunk.new
        if decodes:
            self.gaps.append((seconds + self._stalled_s, decodes))
            self._stalled_s = 0.0
            self.decode_steps += 1
        elif stalls:
            self._stalled_s += seconds
        if self.steps >= self._sampled + SAMPLE:
            self._sample()

    def _ready(self, plans: Seq[StepPlan], seconds: float) -> None:
        """What of prompts can leave: what the cache has of them when their step begins, chunks when it ends.

        An engine that runs ahead hands over what its next step has before what this one computed.
        """
        ends_s = self.now_s + seconds
        self._had(plans, self.now_s)
        if self.ahead:
            self._had([rank.decided or NOTHING for rank in self.ranks], ends_s)
        for last in (True, False):
            for place, plan in enumerate(plans):
                for chunk in plan.chunks:
                    if chunk.ends is last:
                        self._part(ends_s, chunk, chunk.context + chunk.new, place)

    def _had(self, plans: Seq[StepPlan], at_s: float) -> None:
        for place, plan in enumerate(plans):
            if not plan.loaded_s:  # else from slower tiers, while the step runs
                for chunk in plan.chunks:
                    self._part(at_s, chunk._replace(ends=False), chunk.context, place)

    def _part(self, at_s: float, chunk: Chunk, tokens: int, place: int) -> None:
        assert self.parts is not None
        size, number = self.ranks[0].options.block_size, chunk.sequence.request.number
        if not chunk.ends:
            tokens = tokens // size * size
        if tokens:
            self.parts.append(CachePart(at_s, number, tokens, place, chunk.ends))

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
        loading_s = max(plan.loaded_s, rank.noted_s) - self.now_s
        return loading_s if loading_s > seconds else seconds

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
        running = sum(len(rank.running) for rank in self.ranks)
        waiting = sum(rank.queued for rank in self.ranks)
        self.used_blocks.append((self.now_s, sum(rank.pool.used for rank in self.ranks), running, waiting))


def _slowest(lines: Seq[tuple[float, float, int]], most: int) -> tuple[float, float, int]:
    """The rank that all wait for, and for how many steps it stays the slowest."""
    if len(lines) == 1:
        first_s, more, steps = lines[0]
        return first_s, more, min(most, steps)
    most = min(most, *(steps for _, _, steps in lines))
    first = max(lines)
    while most > 1:
        last = max(line[0] + line[1] * (most - 1) for line in lines)
        if last <= first[0] + first[1] * (most - 1):
            break
        most //= 2
    return first[0], first[1], most


def _starting_before(left_s: float, first: float, more: float, most: int) -> int:
    """How many of ``most`` steps, at least one, start within ``left_s``: each is ``more`` longer than the last."""

    def start(step: int) -> float:
        return step * first + more * (step * (step - 1) // 2)

    if most == 1 or start(most - 1) < left_s:
        return most
    low, high = 1, most - 1  # the first ``low`` start in time, step ``high`` does not
    while low < high:
        middle = (low + high) // 2
        if start(middle) < left_s:
            low = middle + 1
        else:
            high = middle
    return low


def _load(rank: Scheduler) -> int:
    return len(rank.running) + 4 * rank.queued
