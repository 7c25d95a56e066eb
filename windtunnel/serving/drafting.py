"""vLLM's scheduler with drafted tokens (``--num-speculative-tokens``, MTP), as 0.33 decides every step.

A decoding sequence takes one place of the budget for its last token and one for every draft, and blocks for as many
drafts again; what is rejected is taken back when the step is over. An engine that runs ahead decides as if everything
were accepted and is corrected later. A block can be found again once the token after it is known, too: drafts read it.
Sequences move by different numbers of tokens. Where plans list who decodes each has counts of its own; else those that
only check drafts are in a ``draft_batch``, as long as memory and budget last for all.
"""

from __future__ import annotations

from windtunnel.serving.acceptance import accepted
from windtunnel.serving.draft_batch import SHORTEST, Course, DraftBatch
from windtunnel.serving.draft_sequence import DraftingSequence, Part
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import Chunk, StepPlan
from windtunnel.serving.vllm_scheduler import VllmScheduler

LOOKAHEAD = 1
"""Tokens after a block that its key covers."""
APART = 32
"""Steps in which everyone is decided by itself after memory or budget did not last for all."""
NO_BOUND = 1 << 60


class DraftingScheduler(VllmScheduler):
    """Decides as ``VllmScheduler`` does, sequence by sequence. ``gained``: tokens that the last step brought each."""

    bursts = True

    def __init__(self, options: SchedulerOptions) -> None:
        super().__init__(options)
        self._count = options.num_speculative_tokens
        self._parts: dict[int, list[Part]] = {}  # of steps under way
        self.newest: list[Part] = []  # of the step that was decided last
        self._steps = 0
        self._over = 0
        self._batch = DraftBatch(options)
        self._loose: dict[DraftingSequence, None] = {}  # running, and not in the batch
        self._apart_until = 0
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

    @property
    def busy(self) -> bool:
        """See ``Scheduler``. A step may be under way for sequences that are done by now."""
        return super().busy or self.decided is not None

    def steady(self, most: int) -> int:
        """Every step is decided by itself."""
        return 0

    def schedule(self, now_s: float) -> StepPlan:
        """See ``Scheduler``."""
        parts: list[Part] = []
        chunks: list[Chunk] = []
        decoded: list[Sequence] = []
        before, batch = self.preempted, self._batch
        turns = self._turns()
        if turns is None:
            self._part()
            budget, contexts = self._each(parts, chunks, decoded)
        else:
            budget, contexts = (
                self.options.max_num_batched_tokens - batch.decodes * batch.tokens,
                batch.contexts,
            )
            self.pool.take(batch.due)
            for one, new in turns:
                self._room_for(one, new)
                budget -= new
                contexts += self._run(one, new, parts, chunks, decoded)
        if self.preempted == before:
            ran, prompts = bool(parts or batch.decodes), bool(chunks)
            self._admit_all(chunks, parts, budget, now_s, ran, prompts)
        self._steps += 1
        self._parts[self._steps] = self.newest = parts
        self.decodes, self.contexts = len(decoded) + batch.decodes, contexts
        plan = StepPlan(
            self.decodes, contexts, tuple(chunks), decoded=tuple(decoded) if self.lists_decoded else ()
        )
        if plan.empty:
            del self._parts[self._steps]
            self._steps -= 1
        self.decided = None if plan.empty else plan
        return plan

    def _each(self, parts: list[Part], chunks: list[Chunk], decoded: list[Sequence]) -> tuple[int, int]:
        """Decide for one running sequence after the other: the budget left, and contexts of those that decode."""
        budget, contexts = self.options.max_num_batched_tokens, 0
        for one in list(self.running):
            assert isinstance(one, DraftingSequence)
            if budget <= 0 or one not in self.running:
                break
            if self._surely_done(one):
                continue
            new = self._cut(one, one.computed, min(self._wanted(one), budget))
            if not new:
                continue
            if not self._room_for(one, new):
                break
            budget -= new
            contexts += self._run(one, new, parts, chunks, decoded)
        return budget, contexts

    def _run(
        self, one: DraftingSequence, new: int, parts: list[Part], chunks: list[Chunk], decoded: list[Sequence]
    ) -> int:
        """Take so many tokens; the answer is its context where it decodes."""
        context = one.computed
        if one.joined_at < 0:
            chunks.append(Chunk(new, context, context + new >= one.known, one))
            self.prompt_tokens += new
            context = 0
        else:
            decoded.append(one)
        parts.append(self._take(one, new))
        return context

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """See ``Scheduler``."""
        self.gained.clear()
        if plan.empty:
            return []
        if plan is self.decided:
            self.decided = None
        self._over += 1
        done = [part.sequence for part in self._parts.pop(self._over) if self._settle(part, now_s)]
        for course in self._batch.ended(self._over):
            one = self._batch.finish(course)
            self._keep(one, one.computed)
            done.append(one)
        done.sort(key=_place)
        for one in done:
            self._end(one)
        return list(done)

    def _settle(self, part: Part, now_s: float) -> bool:
        """Take note of one part of a step that ended; whether its sequence is done."""
        one = part.sequence
        one.in_flight -= part.new
        stale = one.stale > 0
        if stale:
            one.stale -= part.new
        if one.ends_at == 0 or not part.samples:
            return False  # done or cancelled, or a prompt that is not complete
        if not stale:
            one.computed -= part.drafts - part.kept
            one.promised = max(0, one.promised - (part.drafts - part.kept))
        told = min(1 + part.kept, one.request.output_tokens - one.generated)
        one.generated += told
        self.gained[one] = told
        if one.first_s < 0:
            one.first_s = now_s
        if not stale:
            one.computed -= 1 + part.kept - told
            one.promised = max(0, one.promised - (1 + part.kept))
            if not self.options.async_scheduling:
                one.drafts = self._count
            self._keep(one, one.computed - one.in_flight)
        return one.generated >= one.request.output_tokens

    def cancel(self, sequence: Sequence) -> None:
        """See ``Scheduler``."""
        assert isinstance(sequence, DraftingSequence)
        self._part()
        self._end(sequence)

    def _end(self, one: DraftingSequence) -> None:
        one.ends_at = 0
        if one in self.running:
            del self.running[one]
            self._loose.pop(one, None)
            self._give_back(one)
        elif one in self.waiting:
            self.waiting.remove(one)
            self._refused_at = -1

    # The batch

    def _turns(self) -> list[tuple[DraftingSequence, int]] | None:
        """Who is not in the batch and runs in the next step, with how many tokens; None: the batch cannot stay one."""
        if self.lists_decoded or self._steps < self._apart_until:
            return None
        batch, step = self._batch, self._steps + 1
        self._take_out(batch.leaving(step))
        if self._loose:
            self._put_in(step)
        batch.begin(step)
        budget = self.options.max_num_batched_tokens - batch.decodes * batch.tokens
        turns, need = [], batch.due
        for one in sorted(self._loose, key=_place):
            if self._surely_done(one):
                continue
            wanted = self._wanted(one)
            if wanted > budget and any(other.place > one.place for other in batch.courses):
                return None  # takes of what later ones would have
            new = self._cut(one, one.computed, min(wanted, max(0, budget)))
            if new:
                turns.append((one, new))
                budget -= new
                need += self._blocks_for(one, new)
        return turns if budget >= 0 and need <= self.pool.free else None

    def _put_in(self, step: int) -> None:
        """Write down what those will do that only check drafts from ``step`` on."""
        under_way = {part.sequence: part for part in self._parts.get(self._steps, ())}
        each = self._batch.tokens
        for one in list(self._loose):
            if one.joined_at < 0 or one.stale or one.drafts != self._count or self._wanted(one) != each:
                continue
            part = under_way.get(one)
            if one.in_flight != (part.new if part else 0):
                continue
            bound = self._bound(one)
            if one.computed + SHORTEST * each < bound and self._batch.join(
                one, step, 1 + part.kept if part else 0, bound
            ):
                del self._loose[one]

    def _part(self) -> None:
        """Decide for everyone alone, for some steps."""
        if self._batch.courses:
            self._apart_until = self._steps + APART
        if self._batch.courses or self._batch.decodes:
            self._take_out(self._batch.clear())

    def _take_out(self, courses: list[Course]) -> None:
        """Make the counts of these real."""
        if not courses:
            return
        found = []
        for course in courses:
            part = self._batch.resume(course, self._steps, self._over)
            one = course.sequence
            self._loose[one] = None
            self._keep(one, one.computed - one.in_flight)
            if part is not None:
                found.append(part)
        if found:
            self._parts[self._steps] = sorted(
                [*self._parts[self._steps], *found], key=lambda part: part.sequence.place
            )

    def _bound(self, one: DraftingSequence) -> int:
        """Its count from which on it meets something that the batch does not know of."""
        return NO_BOUND

    def _wanted(self, one: DraftingSequence) -> int:
        """Tokens that it would take next."""
        return one.known + one.drafts + one.promised - one.computed

    def _blocks_for(self, one: DraftingSequence, new: int) -> int:
        """Blocks that its next ``new`` tokens need at most."""
        return max(0, -(-(one.computed + new + self._count) // self.options.block_size) - one.held)

    # Running sequences

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


def _place(one: DraftingSequence) -> int:
    return one.place
