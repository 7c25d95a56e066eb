"""SGLang's rules (0.5.23) with drafted tokens (EAGLE and MTP, one chain): every check brings as many as were accepted.

Before a check each decoding sequence holds pages for twice the tokens of a check beyond those that it has: the engine
that runs ahead does not know yet how many the check under way brings. Nothing of that is given back before the
sequence is done or retracted. A sequence that may end with the check under way takes part in the next one; what that
brings is thrown away. Where prompts are mixed in, sequences decode by one token. The tree knows a token only with the
one after it, since the draft layer reads both. Sequences move by different numbers of tokens, so each is counted here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Seq

from windtunnel.serving.acceptance import accepted
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.prefill_budget import CLIP_MAX_NEW_TOKENS, SglangOptions
from windtunnel.serving.radix_pool import RadixSequence, prompt_segments
from windtunnel.serving.radix_tree import Node
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_batch import RETRACT_DECODE_STEPS
from windtunnel.serving.sglang_checks import NO_STEP, Check, CheckedSequence, Step
from windtunnel.serving.sglang_scheduler import SglangScheduler
from windtunnel.serving.step_plan import NOTHING, Chunk, StepPlan


class SglangDraftingScheduler(SglangScheduler):
    """Decides as SGLang does. ``gained``: tokens that the last step brought each sequence."""

    bursts = True
    pairs = True
    """Whether the tree knows a token only with the one after it."""

    def __init__(
        self, options: SchedulerOptions, sglang: SglangOptions, tiers: KvTiers | None = None
    ) -> None:
        super().__init__(options, sglang, tiers)
        self._begin_checks(options)

    def _begin_checks(self, options: SchedulerOptions) -> None:
        self._count = options.num_speculative_tokens
        self._reserve = 2 * (1 + self._count)
        self._batch: list[CheckedSequence] = []  # decoding, in their order
        self._last = NO_STEP  # of prompts, whose sequences decode from the next step on
        self._under_way: deque[Step] = deque()

    def add(self, request: Request, shipped: bool = False) -> CheckedSequence:
        """See ``SglangScheduler``."""
        if not self.busy and request.arrival_s > self._now_s:
            self.new_token_ratio = self._first_ratio  # an idle engine forgets
        sequence = CheckedSequence(request, self.pool, self.options.block_size, reuse=False)
        sequence.prompt = prompt_segments(request)
        sequence.begin(self.tree.root)
        sequence.begin_checks(self.pairs)
        sequence.shipped = shipped
        sequence.came_at = self.prompt_tokens
        self.waiting.append(sequence)
        return sequence

    def fits(self, request: Request) -> bool:
        """See ``SglangScheduler``."""
        size = self.options.block_size
        last = request.prompt_tokens + request.output_tokens + self._reserve
        return super().fits(request) and last + size < self.pool.capacity * size

    @property
    def busy(self) -> bool:
        """See ``Scheduler``. A step may be under way for sequences that are done by now."""
        return super().busy or self.decided is not None

    def steady(self, most: int) -> int:
        """Every step is decided by itself."""
        return 0

    def schedule(self, now_s: float) -> StepPlan:
        """See ``Scheduler``."""
        if self._cut is not None:
            self._keep(self._cut, self._cut.computed)
        self._now_s, self._loaded_s = now_s, 0.0
        self._merge()
        chunks = self._prefill(now_s)
        if not chunks:
            return self._plan(Step((), (), self._decode()))
        mixed: tuple[CheckedSequence, ...] = ()
        if self._mixes and self._batch:
            self._without_finishing()
            if self._batch and self._has_pages_for(self._batch):
                self._take_pages_for(self._batch)
                mixed, self._batch = tuple(self._batch), []
                self.prompt_tokens += len(mixed)
        self._last = Step(tuple(chunks), mixed, ())
        return self._plan(self._last)

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """See ``Scheduler``."""
        self.gained.clear()
        if plan.empty:
            return []
        if plan is self.decided:
            self.decided = None
        self._now_s = now_s
        step, done = self._under_way.popleft(), list[Sequence]()
        for chunk in step.chunks:
            if chunk.ends and self._moved(chunk.sequence, 1):
                if chunk.sequence.first_s < 0:
                    chunk.sequence.first_s = now_s
                if self._ended(chunk.sequence, done, chunk.context + chunk.new):
                    continue
                self._keep(chunk.sequence, chunk.context + chunk.new)
        for one in step.mixed:
            if self._moved(one, 1) and not self._ended(one, done, one.computed):
                one.computed += 1
        for one, kept in step.checks:
            if self._moved(one, 1 + kept):
                one.computed += 1 + kept
                self._passed(one, 1 + kept)
                if one.generated >= one.request.output_tokens:
                    self._ended(one, done, min(one.computed, one.known))
        self.dropped.clear()
        return done

    def cancel(self, sequence: Sequence) -> None:
        """See ``Scheduler``."""
        assert isinstance(sequence, CheckedSequence)
        if sequence in self.running:
            if sequence is self._cut:
                self._cut = None
            del self.running[sequence]
            self._give_up(sequence)
            self._full = False
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def _moved(self, sequence: Sequence, tokens: int) -> bool:
        """Tell it ``tokens`` more, as far as it wants them; False: it was done, cancelled or retracted before."""
        if sequence not in self.running or sequence in self.dropped:
            return False
        left = sequence.request.output_tokens - sequence.generated
        told = self.gained[sequence] = tokens if tokens < left else left
        sequence.generated += told
        return True

    def _passed(self, one: CheckedSequence, tokens: int) -> None:
        """Its newest ``tokens`` are accepted."""

    def _ended(self, sequence: Sequence, done: list[Sequence], tokens: int) -> bool:
        """Where it has all its output: enter its first ``tokens`` into the tree and give the rest back."""
        if sequence.generated < sequence.request.output_tokens:
            return False
        self._leave_to_tree(sequence, tokens)
        del self.running[sequence]
        self._give_up(sequence)
        self._full = False
        done.append(sequence)
        return True

    def _leave_to_tree(self, sequence: Sequence, tokens: int) -> None:
        self._keep(sequence, tokens)

    # The batch

    def _merge(self) -> None:
        """Those whose prompts are complete decode from now on, those that are done no longer."""
        last, self._last = self._last, NO_STEP
        ended = [chunk.sequence for chunk in last.chunks if chunk.ends]
        joining = [one for one in (*ended, *last.mixed) if one in self.running]
        if len(joining) < len(last.chunks) + len(last.mixed) or (joining and not self._batch):
            self._full = False
        before = len(self._batch)
        self._batch = [one for one in self._batch if one in self.running]
        if len(self._batch) < before:
            self._full = False
        for one in joining:
            assert isinstance(one, CheckedSequence)
            self._batch.append(one)
        self.decodes = len(self._batch)

    def _count_batch(self) -> None:
        self.decodes, self.contexts = len(self._batch), sum(one.computed for one in self._batch)

    def _plan(self, step: Step) -> StepPlan:
        decoded = (*step.mixed, *(check.sequence for check in step.checks))
        plan = StepPlan(
            len(decoded), sum(one.computed for one in decoded), step.chunks, self._loaded_s,
            stalls=bool(self._batch) and not decoded, decoded=decoded if self.lists_decoded else (),
        )  # fmt: skip
        self._count_batch()
        if plan.empty:
            self.decided = None
            return NOTHING
        self._under_way.append(step)
        self.decided = plan
        return plan

    def _in_step(self) -> set[Sequence]:
        """Sequences of the step under way."""
        return self._under_way[-1].sequences() if self._under_way else set()

    @property
    def _leaving(self) -> list[Sequence]:
        return []  # they are in the batch until they are known to be done

    def _expected_output(self) -> float:
        return 0.0 + sum(
            min(one.request.output_tokens - one.generated, CLIP_MAX_NEW_TOKENS) * self.new_token_ratio
            for one in self._batch
        )

    def _without_finishing(self) -> bool:
        """Leave those out that are done after the step under way even if all drafts are rejected."""
        last = [one for one in self._batch if one.generated + 1 >= one.request.output_tokens]
        if not last:  # as mostly: nobody asks who is in the step under way
            return False
        finishing = self._in_step().intersection(last)
        self._batch = [one for one in self._batch if one not in finishing]
        if finishing:
            self._full = False
        return bool(finishing)

    # Checks

    def _decode(self) -> tuple[Check, ...]:  # type: ignore[override]
        """What all that run check in the next step."""
        finishing = self._without_finishing()
        if not self._batch:
            return ()
        if self._has_pages_for(self._batch):
            self._decay_ratio()
        elif finishing:  # their pages are free when it ends
            return ()
        else:
            self._retract()
        self._take_pages_for(self._batch)
        found = []
        for one in self._batch:
            kept = accepted(one.request.number, one.checks, self._count, self.options.acceptance)
            one.checks += 1
            found.append(Check(one, kept))
        return tuple(found)

    def _has_pages_for(self, batch: Seq[CheckedSequence]) -> bool:
        return self._has_pages(sum(map(self._pages, batch)))

    def _pages(self, one: CheckedSequence) -> int:
        more = -(-(one.computed + self._reserve) // self.options.block_size) - one.keyed - one.blank
        return more if more > 0 else 0

    def _take_pages_for(self, batch: Seq[CheckedSequence]) -> None:
        size, reserve, tokens, need = self.options.block_size, self._reserve, 0, 0
        for one in batch:
            whole = -(-(one.computed + reserve) // size) * size
            if whole > one.allocated:
                tokens += whole - one.allocated
                one.allocated = whole
            more = self._pages(one)
            need += more
            one.blank += more
        if tokens:  # where pages are larger than a token, one more each is made free
            self.pool.ensure(tokens if size == 1 else -(-tokens // size) + len(batch))
        self.pool.take(need)

    def _retract_but(self, least: int) -> None:
        batch = sorted(self._batch, key=lambda one: (one.generated, -one.request.prompt_tokens), reverse=True)
        under_way = self._in_step()
        gone: list[CheckedSequence] = []
        while len(batch) > least and (not gone or not self._has_pages_for(batch)):
            one = batch.pop()
            if one in under_way:
                self.dropped.add(one)
            del self.running[one]
            self._give_up(one)
            self.pool.ensure(-(-len(batch) * RETRACT_DECODE_STEPS // self.options.block_size))
            one.computed = one.allocated = 0
            one.preemptions += 1
            self.preempted += 1
            gone.append(one)
        made = sum(one.generated for one in batch)
        wanted = sum(one.request.output_tokens for one in batch)
        self.new_token_ratio = min(1.0, (made + RETRACT_DECODE_STEPS * len(batch)) / (wanted + 1))
        for one in gone:
            self._queue_again(one)
        if gone:
            self._full = False
        self._batch = batch

    # Prompts and the tree

    def _compute_all(self, taken: list[tuple[RadixSequence, int]]) -> list[Chunk]:
        chunks = super()._compute_all(taken)
        for chunk in chunks:
            assert isinstance(chunk.sequence, CheckedSequence)
            chunk.sequence.allocated = chunk.sequence.computed
        return chunks

    def _arrived(self, sequence: Sequence, blocks: int, now_s: float) -> None:
        assert isinstance(sequence, CheckedSequence)
        sequence.blank += blocks
        sequence.allocated = sequence.computed
        sequence.generated, sequence.first_s = 1, now_s
        self._batch.append(sequence)
        self._count_batch()

    def _hold(self, sequence: RadixSequence, node: Node, whole: int, already: int) -> None:
        held = sequence.held
        super()._hold(sequence, node, whole, already)
        sequence.blank = held - sequence.keyed
