"""Continuous batching with a token budget, as vLLM's V1 scheduler decides it, first come first served.

Every step, running sequences come first in their order: one token each while they decode, up to the rest of
the budget for a prompt under way; then waiting requests are admitted while budget, places and blocks last
(the whole sequence must fit). When a running sequence gets no block, the last one to be admitted is preempted
and starts over; nothing is admitted in such a step.

At most one prompt is under way between steps, the last of the running ones.
"""

from __future__ import annotations

from windtunnel.serving.kv_cache import Hit
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import Chunk, StepPlan


class VllmScheduler(Scheduler):
    """Decides as vLLM does, and with ``guaranteed_no_evict`` as TensorRT-LLM's executor."""

    def __init__(self, options: SchedulerOptions, tiers: KvTiers | None = None) -> None:
        super().__init__(options, tiers)
        self._under_way: Sequence | None = None
        self._fcfs = options.schedule_policy is SchedulePolicy.FCFS
        self._refused_at = -1  # pool version at which the head of the queue did not fit
        self._unpromised = (
            self.pool.free
        )  # where none may be preempted: free, and not promised to who is admitted

    def add(self, request: Request, shipped: bool = False) -> Sequence:
        """See ``Scheduler``."""
        options = self.options
        sequence = Sequence(request, self.pool, options.block_size, options.enable_prefix_caching)
        sequence.shipped = shipped
        sequence.came_at = self.prompt_tokens
        if not self._fcfs:
            self._refused_at = -1  # the newcomer may go first
        self.waiting.append(sequence)
        return sequence

    def fits(self, request: Request) -> bool:
        """Whether the request, with all its output, can ever be held."""
        blocks = -(-request.last_tokens // self.options.block_size)
        return blocks + self.options.state_groups <= self.pool.capacity

    def steady(self, most: int) -> int:
        """See ``Scheduler``."""
        if self._under_way is not None or not self.decodes or (self.waiting and self._may_admit):
            return 0
        most = min(most, self._next_end() - self.clock - 1)
        free, size = self.pool.free, self.options.block_size
        if self.decodes * -(-most // size) <= free:
            return most
        steps = 0
        while steps < most:
            free -= len(self._dial[(self.clock + steps) % size])
            if free < 0:
                break
            steps += 1
        return steps

    @property
    def _may_admit(self) -> bool:
        full = len(self.running) >= self.options.max_num_seqs
        return bool(self.waiting) and not full and self._refused_at != self._version

    @property
    def _version(self) -> int:
        """Moves when the head of the queue may fit that did not."""
        return self.pool.version

    def schedule(self, now_s: float) -> StepPlan:
        """Decide the next step; an empty plan when nothing can run."""
        options = self.options
        if self.waiting and not self._fcfs:
            self._order_queue()
        if self.puts_off_prompts:
            self._make_room()
            return self._decide([])
        if options.prefill_first:
            chunks: list[Chunk] = []
            self._continue(chunks, options.max_num_batched_tokens)
            used = sum(chunk.new for chunk in chunks)
            self._admit(chunks, options.max_num_batched_tokens - used, now_s)
            if chunks:
                return self._decide(chunks, decoding=False)
        before = self.preempted
        self._make_room()
        chunks = []
        if not options.prefill_first:
            decoding = self.decodes * (1 + options.num_speculative_tokens)
            budget = options.max_num_batched_tokens - decoding
            if self._under_way is not None:
                budget = self._continue(chunks, budget)
            if self.preempted == before:
                self._admit(chunks, budget, now_s)
        return self._decide(chunks)

    def _order_queue(self) -> None:
        if self._refused_at != self._version:
            super()._order_queue()

    def _cached_tokens(self, sequence: Sequence) -> int:
        return self._look_up(sequence)[1] * self.options.block_size

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """Take note that the step ended; the answer is the sequences that are done."""
        for chunk in plan.chunks:
            if chunk.ends and chunk.sequence.first_s < 0:
                chunk.sequence.first_s = now_s
        if plan is self.decided:
            self.decided = None
        done = []
        for sequence in plan.ends:
            if sequence in self.running:
                del self.running[sequence]
                self._release(sequence)
            elif sequence in self.waiting:  # preempted while its last step ran
                self.waiting.remove(sequence)
                self._refused_at = -1
            else:
                continue  # cancelled
            done.append(sequence)
        return done

    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence that nobody waits for any more; between steps only."""
        if sequence in self.running:
            if sequence.joined_at >= 0:
                self._leave(sequence)
            if sequence is self._under_way:
                self._under_way = None
            del self.running[sequence]
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
            self._refused_at = -1
        if not self.running:
            self.decided = None

    def _release(self, sequence: Sequence, in_flight: int = 0) -> None:
        """Give all its blocks back; ``in_flight``: its last tokens that are being computed, which nobody can find."""
        promised = -(-sequence.request.last_tokens // self.options.block_size) - sequence.held
        if not self.options.enable_prefix_caching:
            sequence.blank += self.options.state_groups
        free = self.pool.free
        sequence.release(self.options.enable_prefix_caching, in_flight)
        self._unpromised += self.pool.free - free + promised

    # Decoding sequences

    def _make_room(self) -> None:
        """The blocks that decoding sequences need in this step, preempting where there are none."""
        due = self._dial[self.clock % self._block]
        if not due:
            return
        if len(due) <= self.pool.free:
            self.pool.take(len(due))
            return
        for sequence in [one for one in self.running if one in due]:
            if sequence.joined_at < 0:
                continue  # preempted for one before it
            while not self.pool.free:
                if self._preempt_last() is sequence:
                    break
            else:
                self.pool.take(1)

    def _preempt_last(self) -> Sequence:
        sequence, _ = self.running.popitem()
        in_flight = int(self._decodes_now(sequence))  # a prompt's blocks can be found at once
        if sequence.joined_at >= 0:
            self._leave(sequence)
        if sequence is self._under_way:
            self._under_way = None
        self._release(sequence, in_flight)
        sequence.computed = 0
        sequence.preemptions += 1
        self.preempted += 1
        self.waiting.appendleft(sequence)
        self._refused_at = -1
        return sequence

    # Prompts

    def _continue(self, chunks: list[Chunk], budget: int) -> int:
        """The prompt under way; the answer is the budget left."""
        sequence = self._under_way
        if sequence is None or budget <= 0:
            return budget
        new, need = self._next_part(sequence, budget)
        if need > self.pool.free:
            self._preempt_last()
            return 0
        self._compute(sequence, new, need, chunks)
        return budget - new

    def _next_part(self, sequence: Sequence, budget: int) -> tuple[int, int]:
        """Tokens of a prompt that come next, and the blocks that they need beyond those it holds."""
        computed = sequence.computed
        new = min(sequence.known - computed, budget)
        return new, -(-(computed + new) // self._block) - sequence.held

    def _admit(self, chunks: list[Chunk], budget: int, now_s: float) -> None:
        options, pool = self.options, self.pool
        while budget > 0 and self.waiting and len(self.running) < options.max_num_seqs:
            if self._refused_at == pool.version:
                return
            sequence = self.waiting[0]
            found, blocks = self._look_up(sequence)
            context, known = blocks * options.block_size, sequence.known
            if sequence.shipped and not sequence.generated:
                context = known
            whole = known - context
            new = min(whole, budget)
            if new < whole and not options.enable_chunked_prefill:
                return
            # a sequence from elsewhere decodes at once and needs the place of its first token here
            end = context + (new or 1)
            groups = options.state_groups
            room = self._blocks_asked(sequence, found, blocks, end)
            if room > self._room:
                self._refused_at = pool.version
                return
            self._unpromised -= room
            self.waiting.popleft()
            self._hold_found(sequence, found, blocks)
            if groups:
                pool.take(groups)
            self.running[sequence] = None
            cached = blocks * options.block_size
            self._note_first(sequence, now_s, cached, cached)
            sequence.computed = context
            need = -(-end // options.block_size) - blocks
            if new:
                self._compute(sequence, new, need, chunks)
                budget -= new
            else:
                self._arrive(sequence, need, now_s)

    def _blocks_asked(self, sequence: Sequence, found: list[Hit], blocks: int, end: int) -> int:
        """Blocks that must be free for a sequence of which ``blocks`` were found and the step computes to ``end``."""
        options = self.options
        last = max(end, sequence.known) if options.scheduler_reserve_full_isl else end
        if options.guaranteed_no_evict:
            last = sequence.request.last_tokens
        idle = self.pool.idle_among(found) if found else 0
        return -(-last // options.block_size) - blocks + idle + options.state_groups

    @property
    def prompt_ready(self) -> bool:
        """See ``Scheduler``."""
        if self._under_way is not None:
            return True
        if not self._may_admit:
            return False
        options = self.options
        budget = options.max_num_batched_tokens - self.decodes * (1 + options.num_speculative_tokens)
        sequence = self.waiting[0]
        found, blocks = self._look_up(sequence)
        context = blocks * options.block_size
        whole = sequence.known - context
        if budget <= 0 or (budget < whole and not options.enable_chunked_prefill):
            return False
        return self._blocks_asked(sequence, found, blocks, context + min(whole, budget)) <= self._room

    def _hold_found(self, sequence: Sequence, found: list[Hit], blocks: int) -> None:
        """Hold the blocks that were found of its prompt."""
        self.pool.touch(sequence, found)
        sequence.keyed = blocks

    def _note_first(self, sequence: Sequence, now_s: float, cached: int, hits: int) -> bool:
        """Count its first admission: tokens cached anywhere, and hits on the card; False: not the first."""
        if sequence.admitted_s >= 0:
            return False
        sequence.admitted_s, sequence.cached_tokens = now_s, cached
        self.queries += sequence.request.prompt_tokens
        self.hits += hits
        return True

    @property
    def _room(self) -> int:
        """Blocks for who is admitted next. Where none may be preempted, those of its whole output are set apart at
        once: what is left does not change as sequences grow into their own.
        """
        return self._unpromised if self.options.guaranteed_no_evict else self.pool.free

    def _arrive(self, sequence: Sequence, need: int, now_s: float) -> None:
        """A sequence whose prompt was computed elsewhere decodes from this step on."""
        self.pool.take(need)
        self._arrived(sequence, need, now_s)

    def _look_up(self, sequence: Sequence) -> tuple[list[Hit], int]:
        if not self.options.enable_prefix_caching:
            return [], 0
        return self.pool.find(sequence.lookup(), (sequence.known - 1) // self.options.block_size)

    def _compute(self, sequence: Sequence, new: int, need: int, chunks: list[Chunk]) -> None:
        context = sequence.computed
        self.prompt_tokens += new
        if need > 0:
            self.pool.take(need)
            sequence.blank += need
        computed = sequence.computed = context + new
        if self.options.enable_prefix_caching:
            sequence.register(computed)
        ends = computed == sequence.known
        self._under_way = None if ends else sequence
        chunks.append(Chunk(new, context, ends, sequence))
