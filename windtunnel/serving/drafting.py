"""vLLM's scheduler with drafted tokens (``--num-speculative-tokens``, MTP), as 0.33 decides every step.

What a sequence takes and who is admitted is in ``draft_admission``. An engine that runs ahead decides as if everything
were accepted and is corrected later. Sequences move by different numbers of tokens. Where plans list who decodes each
has counts of its own; else those that only check drafts are in a ``draft_batch``, as long as the budget lasts for all.
Where memory does not, those that need blocks take them in order and the last ones are preempted, out of the batch too.
"""

from __future__ import annotations

from windtunnel.serving.draft_admission import DraftAdmission
from windtunnel.serving.draft_batch import SHORTEST, Course, DraftBatch, Turn
from windtunnel.serving.draft_sequence import DraftingSequence, Part
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import Chunk, StepPlan

APART = 32
"""Steps in which everyone is decided by itself after the budget did not last for all."""
NO_BOUND = 1 << 60


class DraftingScheduler(DraftAdmission):
    """Decides as ``VllmScheduler`` does, sequence by sequence. ``gained``: tokens that the last step brought each."""

    bursts = True

    def __init__(self, options: SchedulerOptions) -> None:
        super().__init__(options)
        self._parts: dict[int, list[Part]] = {}  # of steps under way
        self.newest: list[Part] = []  # of the step that was decided last
        self._steps = 0
        self._over = 0
        self._batch = DraftBatch(options)
        self._apart_until = 0

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
            budget, contexts = self._together(turns, parts, chunks, decoded)
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

    def _together(
        self, turns: list[Turn], parts: list[Part], chunks: list[Chunk], decoded: list[Sequence]
    ) -> tuple[int, int]:
        """The same for the batch and those beside it, who are the ``turns``."""
        batch = self._batch
        if batch.due + sum(need for _, _, need in turns) <= self.pool.free:
            self.pool.take(batch.due)
        else:  # each asks for blocks in order, so that those are preempted that the engine preempts
            turns = sorted([*turns, *batch.due_now(self._steps + 1)], key=lambda turn: turn[0].place)
        budget, contexts = self.options.max_num_batched_tokens, 0
        for one, new, need in turns:
            if one in batch.courses:
                if not self._takes(one, need):
                    break
            elif one in self.running:  # else it was preempted for one before it
                if not self._room_for(one, new):
                    break
                budget -= new
                contexts += self._run(one, new, parts, chunks, decoded)
        return budget - batch.decodes * batch.tokens, contexts + batch.contexts

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

    def _turns(self) -> list[Turn] | None:
        """Who is not in the batch and runs in the next step, with how many tokens and blocks at most.

        None: the batch cannot stay one.
        """
        if self.lists_decoded or self._steps < self._apart_until:
            return None
        batch, step = self._batch, self._steps + 1
        self._take_out(batch.leaving(step))
        if self._loose:
            self._put_in(step)
        batch.begin(step)
        budget = self.options.max_num_batched_tokens - batch.decodes * batch.tokens
        turns: list[Turn] = []
        for one in sorted(self._loose, key=_place):
            if self._surely_done(one):
                continue
            wanted = self._wanted(one)
            if wanted > budget and any(other.place > one.place for other in batch.courses):
                return None  # takes of what later ones would have
            new = self._cut(one, one.computed, min(wanted, max(0, budget)))
            if new:
                turns.append((one, new, self._blocks_for(one, new)))
                budget -= new
        return turns if budget >= 0 else None

    def _takes(self, one: DraftingSequence, need: int) -> bool:
        """Blocks for one of the batch, preempting; False: it was preempted itself."""
        while need > self.pool.free:
            if self._preempt_last() is one:
                return False
        self.pool.take(need)
        return True

    def _preempt_last(self) -> DraftingSequence:
        one = next(reversed(self.running))
        assert isinstance(one, DraftingSequence)
        if one in self._batch.courses:
            self._take_out([self._batch.withdraw(one, self._steps + 1)])
        return super()._preempt_last()

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


def _place(one: DraftingSequence) -> int:
    return one.place
