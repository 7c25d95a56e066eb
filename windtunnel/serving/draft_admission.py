"""What sequences with drafted tokens take in vLLM 0.33: budget, blocks, places; who is preempted and who is admitted.

A decoding sequence takes one place of the budget for its last token and one for every draft, and blocks for as many
drafts again; what is rejected is taken back when the step is over. A block can be found again once the token after it
is known, too: drafts read it.
"""

from __future__ import annotations

from windtunnel.serving.acceptance import accepted
from windtunnel.serving.draft_sequence import DraftingSequence, Part
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import Chunk
from windtunnel.serving.vllm_scheduler import VllmScheduler

LOOKAHEAD = 1
"""Tokens after a block that its key covers."""


class DraftAdmission(VllmScheduler):
    """Counts for each sequence by itself; ``drafting`` decides the steps."""

    def __init__(self, options: SchedulerOptions) -> None:
        super().__init__(options)
        self._count = options.num_speculative_tokens
        self._loose: dict[DraftingSequence, None] = {}  # running, and not in the batch
        self._places = 0

    def add(self, request: Request, shipped: bool = False) -> DraftingSequence:
        """See ``Scheduler``."""
        options = self.options
        sequence = DraftingSequence(
            request, self.pool, options.block_size, options.enable_prefix_caching, LOOKAHEAD
        )
        sequence.begin()
        sequence.shipped = shipped
        self.waiting.append(sequence)
        return sequence

    def fits(self, request: Request) -> bool:
        """See ``Scheduler``."""
        last = request.last_tokens + 2 * self._count
        return -(-last // self.options.block_size) <= self.pool.capacity

    # Running sequences

    def _wanted(self, one: DraftingSequence) -> int:
        """Tokens that it would take next."""
        return one.known + one.drafts + one.promised - one.computed

    def _blocks_for(self, one: DraftingSequence, new: int) -> int:
        """Blocks that its next ``new`` tokens need at most."""
        return max(0, -(-(one.computed + new + self._count) // self.options.block_size) - one.held)

    def _cut(self, one: DraftingSequence, start: int, new: int) -> int:
        """Tokens of the next chunk after ``start``, at most ``new``."""
        return new

    def _surely_done(self, one: DraftingSequence) -> bool:
        """Whether steps under way bring its last token even if all drafts are rejected."""
        return one.promised > 0 and one.computed + 2 - one.promised >= one.request.last_tokens + 1

    def _room_for(self, one: DraftingSequence, new: int) -> bool:
        """Take the blocks of ``new`` tokens and drafts to come, preempting; False: it was preempted itself."""
        need = self._blocks_for(one, new)
        while need > self.pool.free:
            last = self._preempt_last()
            if last is one:
                return False
        if need:
            self.pool.take(need)
            one.blank += need
        return True

    def _take(self, one: DraftingSequence, new: int, padded: int = 0) -> Part:
        """Count ``new`` tokens of it as under way; ``padded``: of them that stand for drafts nobody made."""
        used = padded or min(one.drafts, max(0, new + one.computed - one.known - one.promised))
        kept = 0
        if used and not padded:
            kept = accepted(one.request.number, one.checks, used, self.options.acceptance)
            one.checks += 1
        one.drafts = 0
        self._keep(one, min(one.computed + new, one.known))
        one.computed += new
        one.in_flight += new
        samples = one.computed >= one.known + one.promised
        if samples:
            one.joined_at = self.clock
            if self.options.async_scheduling:
                one.promised += 1 + used
                one.drafts = self._count
        return Part(one, new, used, kept, samples)

    def _keep(self, one: DraftingSequence, tokens: int) -> None:
        """Give the full blocks of its first ``tokens`` tokens their keys, as far as the token after them is known."""
        if not self.options.enable_prefix_caching:
            return
        full = min(tokens, one.known - LOOKAHEAD) // self.options.block_size
        if full <= one.keyed:
            return
        one.register(full * self.options.block_size)
        if full > one.keyed:
            first = one.keyed - one.known_blocks
            self.pool.register(one, one.output_key, first, full - one.known_blocks)
            one.blank -= full - one.keyed
            one.keyed = full

    def _give_back(self, one: DraftingSequence) -> None:
        self.pool.release(one, one.blank)
        one.restart()

    def _preempt_last(self) -> DraftingSequence:
        one = next(reversed(self.running))
        assert isinstance(one, DraftingSequence)
        del self.running[one]
        self._loose.pop(one, None)
        self._give_back(one)
        one.computed = one.drafts = one.promised = 0
        one.stale = one.in_flight
        one.joined_at = -1
        one.preemptions += 1
        self.preempted += 1
        self.waiting.appendleft(one)
        self._refused_at = -1
        return one

    # Prompts

    def _state_blocks(self, one: DraftingSequence, tokens: int) -> int:
        """Blocks that its recurrent states need to begin with, when it is computed up to ``tokens``."""
        return 0

    def _adopt_states(self, one: DraftingSequence) -> None:
        """Hold the states that were found."""

    def _grow(self, one: DraftingSequence, tokens: int) -> None:
        """Hold the states of a sequence that is computed up to ``tokens``."""

    def _admit_all(
        self, chunks: list[Chunk], parts: list[Part], budget: int, now_s: float, ran: bool, prompts: bool
    ) -> None:
        options, pool, size = self.options, self.pool, self.options.block_size
        passed: list[Sequence] = []
        while budget > 0 and self.waiting and len(self.running) < options.max_num_seqs:
            one = self.waiting[0]
            assert isinstance(one, DraftingSequence)
            if one.stale:
                passed.append(self.waiting.popleft())
                continue
            found, blocks = self._look_up(one)
            shipped = one.shipped and not one.generated
            context = one.known if shipped else blocks * size
            new, padded = min(one.known - context, budget), 0
            if one.known - context == 1 and not prompts and (ran or context):
                if 1 + self._count > budget:
                    break
                new, padded = 1 + self._count, self._count
            cut = self._cut(one, context, new)
            if padded and cut != new:
                cut, padded = 1, 0
            new = cut
            if not new and not shipped:
                break
            idle = pool.idle_among(found)
            whole = -(-(one.known + shipped) // size) - blocks + idle
            need = -(-(context + max(new, int(shipped)) + self._count) // size) - blocks
            states = self._state_blocks(one, context + max(new, int(shipped)))
            if max(whole, need + idle) + states > pool.free:
                break
            self.waiting.popleft()
            pool.touch(one, found)
            self._adopt_states(one)
            one.keyed = blocks
            pool.take(need)
            one.blank = need
            self._grow(one, context + max(new, int(shipped)))
            one.computed = context
            self.running[one] = self._loose[one] = None
            self._places += 1
            one.place = self._places
            if one.admitted_s < 0:
                one.admitted_s = now_s
                one.cached_tokens = blocks * size
                self.queries += one.request.prompt_tokens
                self.hits += one.cached_tokens
            if shipped:
                one.generated = 1
                one.first_s = now_s
                one.joined_at = self.clock
                continue
            chunks.append(Chunk(new, context, context + new >= one.known, one))
            self.prompt_tokens += new
            budget -= new
            parts.append(self._take(one, new, padded))
        self.waiting.extendleft(reversed(passed))
