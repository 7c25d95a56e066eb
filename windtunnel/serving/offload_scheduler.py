"""vLLM's scheduler with host memory beyond the card (``--kv-offloading-size``), as 0.33 decides with its connector.

A prompt of which host memory has more than the card takes its blocks and waits beside the queue while they are filled;
others run. It may begin only where the blocks that unfinished prompts still need are left, so that each can go on.
A prompt that would read what is just being written or read for another is passed over until that is there. An engine
that runs ahead preempts nobody who is in the step under way: whoever finds no block, and all behind, wait a step.
"""

from __future__ import annotations

from windtunnel.serving.kv_cache import Hit
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.offloading import Offloading
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import Chunk, StepPlan
from windtunnel.serving.vllm_scheduler import VllmScheduler


class OffloadScheduler(VllmScheduler):
    """Decides as ``VllmScheduler`` does, with cache that comes and goes.

    Attributes:
        loading: sequences that hold blocks for cache on its way.
    """

    def __init__(self, options: SchedulerOptions, tiers: KvTiers) -> None:
        super().__init__(options, tiers)
        self.pool.gone = []
        self.loading: dict[Sequence, None] = {}
        self.offload = Offloading(tiers, options.block_size, 2 if options.async_scheduling else 1)
        self._taken: list[Hit] = []
        self._paused: list[Sequence] = []
        self._halted = False
        self._now_s = 0.0

    @property
    def busy(self) -> bool:
        """See ``Scheduler``."""
        return super().busy or bool(self.loading) or self.offload.pending

    @property
    def wakes_s(self) -> float:
        """See ``Scheduler``."""
        return self.offload.next_s

    @property
    def held_s(self) -> float:
        """See ``Scheduler``."""
        return self.offload.held_s

    def steady(self, most: int) -> int:
        """Steps that only decode, while nothing moves."""
        return super().steady(most) if not self.loading and self.offload.quiet else 0

    def schedule(self, now_s: float) -> StepPlan:
        """See ``Scheduler``."""
        self._now_s = now_s
        while True:
            self._halted = False
            plan = super().schedule(now_s)
            for sequence in self._paused:
                self._join(sequence)
            self._paused.clear()
            if plan.empty and not self.offload.pending and not self.loading:
                return plan
            self.offload.launch(now_s, not plan.empty, self._offering(plan), self._reused())
            told = self.offload.turn()
            if not plan.empty:
                return plan
            if any(step.forward for step in self.offload.steps) or not (told or self.offload.restless):
                return plan

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """See ``Scheduler``."""
        done = super().complete(plan, now_s)
        for sequence in done:
            self.offload.gone(sequence)
        if not plan.empty and self.offload.steps:
            self.offload.completed(now_s)
        return done

    def advance(self, steps: int) -> None:
        """See ``Scheduler``."""
        super().advance(steps)
        self.pool.gone = []

    def cancel(self, sequence: Sequence) -> None:
        """See ``Scheduler``. What is on its way for it arrives in vain."""
        if sequence in self.loading:
            del self.loading[sequence]
            self._release(sequence)
        else:
            super().cancel(sequence)
        self.offload.gone(sequence)

    def _offering(self, plan: StepPlan) -> list[tuple[Sequence, int]]:
        """Whose prompt has blocks to offer after this step, in the order of the batch, and how many tokens of it."""
        found = []
        if plan.decodes and self.offload.behind:
            found = [
                (one, one.request.prompt_tokens)
                for one in self.running
                if one in self.offload.behind and (0 <= one.joined_at < self.clock or one in plan.ends)
            ]
        return found + [(chunk.sequence, chunk.context + chunk.new) for chunk in plan.chunks]

    def _reused(self) -> set[int]:
        """Blocks that this step took, or evicted to take their place."""
        assert self.pool.gone is not None
        parts = [*self.pool.gone, *((run.key, first, end) for run, first, end in self._taken)]
        self.pool.gone = []
        self._taken.clear()
        return self.offload.named(parts)

    def _preempt_last(self) -> Sequence:
        sequence = super()._preempt_last()
        self.offload.preempted(sequence)
        return sequence

    def _make_room(self) -> None:
        due = self._dial[self.clock % self.options.block_size]
        if len(due) <= self.pool.free:
            self.pool.take(len(due))
            return
        for one in list(self.running):
            if one not in self.running or one.joined_at < 0:
                continue
            if not self._halted and one in due and not self._block_for(one):
                continue
            if self._halted:
                self._leave(one)
                self._paused.append(one)

    def _block_for(self, one: Sequence) -> bool:
        """Take a block, preempting where there is none; False: it was preempted itself."""
        while not self.pool.free:
            if self._in_flight(next(reversed(self.running))):
                self._halted = True
                return True
            if self._preempt_last() is one:
                return False
        self.pool.take(1)
        return True

    # Prompts

    def _continue(self, chunks: list[Chunk], budget: int) -> int:
        sequence = self._under_way
        if sequence is None or budget <= 0:
            return budget
        _, need = self._next_part(sequence, budget)
        if self._halted or (need > self.pool.free and self._in_flight(sequence)):
            return budget
        return super()._continue(chunks, budget)

    @property
    def _version(self) -> int:
        return self.pool.version + self.offload.host.version

    @property
    def _reserved(self) -> int:
        """Blocks that unfinished prompts will still take."""
        unfinished = [*self.loading, *([self._under_way] if self._under_way else [])]
        return sum(-(-one.known // self.options.block_size) - one.held for one in unfinished)

    def _admit(self, chunks: list[Chunk], budget: int, now_s: float) -> None:
        options, pool = self.options, self.pool
        for sequence in [one for one in self.loading if one.loaded]:
            if budget <= 0 or len(self.running) >= options.max_num_seqs:
                return
            sequence.register(sequence.computed)
            need = -(-self._last(sequence) // options.block_size) - sequence.held
            if need > pool.free:
                return
            del self.loading[sequence]
            sequence.loaded = False
            sequence.computed = min(sequence.computed, sequence.known - 1)
            budget -= self._run(sequence, budget, chunks, now_s)
        if self._refused_at == self._version:
            return
        passed: list[Sequence] = []
        while budget > 0 and self.waiting and len(self.running) < options.max_num_seqs:
            sequence = self.waiting[0]
            found, blocks = self._look_up(sequence)
            more = (0, 0) if sequence.shipped else self.offload.look_up(sequence, blocks, now_s)
            if more is None:
                passed.append(self.waiting.popleft())
                continue
            free, idle = self._room, pool.idle_among(found)
            room = -(-self._last(sequence) // options.block_size) - blocks + idle
            if room > free:
                self._refused_at = -1 if passed else self._version
                break
            if any(more):
                if sum(more) + idle > free - self._reserved:
                    break
                self._unpromised -= room
                self.waiting.popleft()
                self._hold_found(sequence, found, blocks)
                self._load(sequence, blocks, more)
                continue
            self._unpromised -= room
            self.waiting.popleft()
            self._hold_found(sequence, found, blocks)
            if sequence.shipped and not sequence.generated:
                self._note(sequence, blocks)
                sequence.computed = sequence.known
                self.running[sequence] = None
                self._arrive(sequence, -(-(sequence.known + 1) // options.block_size) - blocks, now_s)
            else:
                sequence.computed = blocks * options.block_size
                self._note(sequence, blocks)
                budget -= self._run(sequence, budget, chunks, now_s)
        self.waiting.extendleft(reversed(passed))

    def _last(self, sequence: Sequence) -> int:
        """Tokens for which there must be room before it is admitted."""
        if self.options.guaranteed_no_evict:
            return sequence.request.last_tokens
        return sequence.known + int(sequence.shipped and not sequence.generated)

    def _hold_found(self, sequence: Sequence, found: list[Hit], blocks: int) -> None:
        self._taken += found
        super()._hold_found(sequence, found, blocks)

    def _load(self, sequence: Sequence, blocks: int, more: tuple[int, int]) -> None:
        size = self.options.block_size
        self.pool.take(sum(more))
        sequence.blank = sum(more)
        sequence.computed = (blocks + sum(more)) * size
        self._note(sequence, blocks, sum(more))
        self.loading[sequence] = None
        self.offload.load(sequence, blocks, *more)

    def _note(self, sequence: Sequence, blocks: int, more: int = 0) -> None:
        size = self.options.block_size
        cached = min((blocks + more) * size, sequence.known - 1)
        if self._note_first(sequence, self._now_s, cached, blocks * size):
            self.offload.asked(sequence.known // size * size - blocks * size)

    def _run(self, sequence: Sequence, budget: int, chunks: list[Chunk], now_s: float) -> int:
        """Compute the first of what is left of a prompt; the answer is how many tokens."""
        new, need = self._next_part(sequence, budget)
        self.running[sequence] = None
        self._compute(sequence, new, need, chunks)
        return new
