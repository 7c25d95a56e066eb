"""Admission, decoding and retraction by SGLang's rules (0.5.23, without overlap and mixed chunks), over a radix tree.

A step computes prompts where any can be admitted, else every running sequence by one token. A prompt is admitted
while its tokens, its output (clipped) and a page fit beside what running sequences are estimated to still need: their
remaining output times ``new_token_ratio``. The ratio starts at 0.7 × ``schedule_conservativeness`` and decays over 600
decode steps to a seventh; when a decode step finds no pages even after eviction, sequences with the fewest
output tokens are *retracted* (their cache is given up, they queue again), and the ratio is set from what remains.

One prompt at a time may be cut to ``chunked_prefill_size``. Every prompt enters the tree when it is computed, every
output when it is done; what a sequence has in the tree is locked. Requests are taken to ask for exactly the output
that they get (``max_new_tokens``); real clients often ask for more.
"""

from __future__ import annotations

from windtunnel.serving.kv_tiers import Found, KvTiers, first_tokens
from windtunnel.serving.prefill_budget import (
    CLIP_MAX_NEW_TOKENS,
    NO_TOKEN,
    OTHER,
    PrefillBudget,
    SglangOptions,
)
from windtunnel.serving.queue_order import MATCH_MAX, SchedulePolicy
from windtunnel.serving.radix_pool import RadixPool, RadixSequence, prompt_segments
from windtunnel.serving.radix_tree import EvictionPolicy, Node, RadixTree
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Chunk, Scheduler, StepPlan
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence

INIT_NEW_TOKEN_RATIO, MIN_NEW_TOKEN_RATIO_FACTOR, DECAY_STEPS = 0.7, 0.14, 600
RETRACT_DECODE_STEPS = 20
REFRESH_EVERY = 32
"""Looks at the queue after which the prefixes of waiting requests count as used again."""
RESERVED_DECODE_TOKENS = 512
"""``--num-reserved-decode-tokens``: kept free for each sequence on a decode server."""


class SglangScheduler(Scheduler):
    """Decides as SGLang does; counts as ``Scheduler`` does."""

    pool: RadixPool

    def __init__(
        self, options: SchedulerOptions, sglang: SglangOptions, tiers: KvTiers | None = None
    ) -> None:
        super().__init__(options, tiers)
        self.sglang = sglang
        self.chunk = sglang.chunked_prefill_size or options.max_num_batched_tokens
        self.tree = RadixTree(options.block_size, sglang.radix_eviction_policy)
        self.pool = RadixPool(options.num_gpu_blocks, self.tree)
        first = min(INIT_NEW_TOKEN_RATIO * sglang.schedule_conservativeness, 1.0)
        self._least_ratio = min(first * MIN_NEW_TOKEN_RATIO_FACTOR, 1.0)
        self._decay = (first - self._least_ratio) / DECAY_STEPS
        self._first_ratio = self.new_token_ratio = first
        self._full = False
        self._cut: RadixSequence | None = None  # the prompt under way
        self._refreshes = 0
        self._now_s = self._loaded_s = 0.0

    def add(self, request: Request, shipped: bool = False) -> RadixSequence:
        """Queue a request; ``shipped``: its prompt's cache and first token come with it."""
        if not self.busy:
            self.new_token_ratio = self._first_ratio  # an idle engine forgets
        sequence = RadixSequence(request, self.pool, self.options.block_size, reuse=False)
        sequence.prompt = prompt_segments(request)
        sequence.begin(self.tree.root)
        sequence.shipped = shipped
        sequence.came_at = self.prompt_tokens
        self.waiting.append(sequence)
        return sequence

    def fits(self, request: Request) -> bool:
        """Whether the request, with all its output, can ever be admitted."""
        tokens = request.prompt_tokens + min(request.output_tokens, CLIP_MAX_NEW_TOKENS)
        size = self.options.block_size
        held = max(tokens, request.last_tokens)
        return held + size < self.pool.capacity * size

    def steady(self, most: int) -> int:
        """Steps that only decode and evict nothing."""
        if self._cut is not None or not self.decodes or (self.waiting and not self._full):
            return 0
        left, steps = self.pool.blank, 0
        most = min(most, self._next_end() - self.clock - 1)
        while steps < most and left >= self.decodes:
            left -= len(self._dial[(self.clock + steps) % self.options.block_size])
            steps += 1
        return steps

    def advance(self, steps: int) -> None:
        """Take ``steps`` steady steps at once."""
        super().advance(steps)
        for _ in range(steps):
            self._decay_ratio()
            if self.new_token_ratio <= self._least_ratio:
                break

    def schedule(self, now_s: float) -> StepPlan:
        """Decide the next step; an empty plan when nothing can run."""
        if self._cut is not None:
            self._keep(self._cut, self._cut.computed)
        self._now_s, self._loaded_s = now_s, 0.0
        chunks = self._prefill(now_s)
        if chunks:
            return StepPlan(0, 0, tuple(chunks), self._loaded_s)
        if self.decodes:
            self._make_room()
        return StepPlan(self.decodes, self.contexts, ())

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """Take note that the step ended; the answer is the sequences that are done."""
        done: list[Sequence] = []
        self._now_s = now_s
        if plan.decodes:
            self.clock += 1
            self.contexts += plan.decodes
            due = dict.fromkeys(self._ends.pop(self.clock, ()))  # who joined again may be there twice
            ended = [one for one in due if one.ends_at == self.clock and one.joined_at >= 0]
            order = {one: place for place, one in enumerate(self.running)} if len(ended) > 1 else {}
            for sequence in sorted(ended, key=lambda one: order.get(one, 0)):
                self._leave(sequence)
                self._finish(sequence)
                done.append(sequence)
        alone = not self.decodes
        joining = []
        for chunk in plan.chunks:
            sequence = chunk.sequence
            if not chunk.ends:
                self._full = False
                continue
            sequence.generated += 1
            if sequence.first_s < 0:
                sequence.first_s = now_s
            if sequence.generated >= sequence.request.output_tokens:
                self._finish(sequence)
                done.append(sequence)
            else:
                self._keep(sequence, sequence.computed)
                joining.append(sequence)
        for sequence in joining:  # a batch runs in the order in which prompts were completed
            del self.running[sequence]
            self.running[sequence] = None
            self._join(sequence)
        if joining and alone:
            self._full = False
        return done

    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence that nobody waits for any more; between steps only."""
        assert isinstance(sequence, RadixSequence)
        if sequence in self.running:
            if sequence.joined_at >= 0:
                self._leave(sequence)
            if sequence is self._cut:
                self._cut = None
            del self.running[sequence]
            self._give_up(sequence)
            self._full = False
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    # Prompts

    def _prefill(self, now_s: float) -> list[Chunk]:
        options = self.options
        if not self.decodes:
            self._full = False
        if (self._full or not self.waiting) and self._cut is None:
            return []
        if self.decodes >= options.max_num_seqs and self._cut is None:
            self._full = True
            return []
        self._order_queue()
        budget = PrefillBudget(self.pool, self.sglang.max_prefill_tokens, self.chunk, self._expected_output())
        taken: list[tuple[RadixSequence, int]] = []
        if self._cut is not None:
            taken.append((self._cut, self._go_on(self._cut, budget)))
            if taken[0][0].computed + taken[0][1] == taken[0][0].known:
                self._cut = None
        admitted = 0
        for waiting in self.waiting:
            if budget.has_room and budget.spent:
                break
            if len(taken) >= options.max_num_seqs - self.decodes:
                self._full = True
            if self._full:
                break
            assert isinstance(waiting, RadixSequence)
            if waiting.shipped and not waiting.generated:
                if not self._take_in(waiting, now_s):
                    self._full = self.decodes > 0
                    break
                admitted += 1
                continue
            new = self._try(waiting, budget, bool(taken))
            if new > 0:
                taken.append((waiting, new))
                admitted += 1
            if new == NO_TOKEN or (new > 0 and not budget.has_room):
                self._full = bool(taken) or self.decodes > 0
                break
            if new == OTHER or budget.spent:
                break
        for _ in range(admitted):
            self.waiting.popleft()
        return self._compute_all(taken)

    def _expected_output(self) -> float:
        """Tokens that running sequences are estimated to still need."""
        ratio, clock = self.new_token_ratio, self.clock
        return 0.0 + sum(
            min(one.ends_at - clock, CLIP_MAX_NEW_TOKENS) * ratio
            for one in self.running
            if one.joined_at >= 0
        )

    def _go_on(self, sequence: RadixSequence, budget: PrefillBudget) -> int:
        left = sequence.known - sequence.computed
        room = min(budget.chunk, int(budget.total))
        new = min(left, room if room > 0 else budget.chunk)
        budget.reserve(new, 0 if left > new else min(sequence.request.output_tokens, CLIP_MAX_NEW_TOKENS))
        return new

    def _try(self, sequence: RadixSequence, budget: PrefillBudget, others: bool) -> int:
        """Tokens of the prompt that join the step, or why none do."""
        size = self.options.block_size
        found, node = self._find(sequence)
        more = self._in_tiers(sequence, found)
        left = sequence.known - found
        output = min(sequence.request.output_tokens - sequence.generated, CLIP_MAX_NEW_TOKENS)
        self.tree.lock(node)
        new, ends = left, True
        if left + output + size >= budget.total:
            self.tree.unlock(node)
            return NO_TOKEN
        if more is not None:
            found, left = found + more.tokens, left - more.tokens
            new = left
        if left <= 0 or (self.chunk < 0 and others and -(-left // size) * size >= budget.input):
            new = OTHER
        elif -(-left // size) * size > budget.chunk:
            new = (found + budget.chunk // size * size) // size * size - found
            ends = False
            if new <= 0:
                new = OTHER
        if new <= 0:
            self.tree.unlock(node)
            return new
        sequence.node, sequence.owned = node, found
        sequence.computed = found
        sequence.keyed, sequence.blank = found // size, 0
        if more is not None:
            assert self.tiers is not None
            self._loaded_s = max(self._loaded_s, self.tiers.load(more, self._now_s))
            sequence.owned = found - more.tokens
            self.pool.take(more.tokens // size)
            self._keep(sequence, found)
        if not ends:
            self._cut = sequence
        self.running[sequence] = None
        if sequence.admitted_s < 0:
            sequence.admitted_s = self._now_s
            sequence.cached_tokens = found
            self.queries += sequence.request.prompt_tokens
            self.hits += found - (more.tokens if more is not None else 0)
            if self.tiers is not None:
                self.tiers.count(sequence.known - 1 - found + (more.tokens if more is not None else 0))
        budget.reserve(new, min(sequence.request.output_tokens, CLIP_MAX_NEW_TOKENS) if ends else 0)
        return new

    def _take_in(self, sequence: RadixSequence, now_s: float) -> bool:
        """Run a sequence whose prompt was computed elsewhere, if it fits beside output kept free for all."""
        size = self.options.block_size
        reserved = RESERVED_DECODE_TOKENS * (self.decodes + 1)
        if sequence.known + reserved > self.pool.free * size and self.decodes:
            return False
        blocks = -(-sequence.known // size)
        if blocks > self.pool.free:
            return False
        self.pool.take(blocks)
        self.running[sequence] = None
        sequence.computed = sequence.known
        if sequence.admitted_s < 0:
            sequence.admitted_s = now_s
        self._arrived(sequence, blocks, now_s)
        return True

    def _compute_all(self, taken: list[tuple[RadixSequence, int]]) -> list[Chunk]:
        size = self.options.block_size
        tokens = sum(new for _, new in taken)
        self.pool.ensure(tokens if size == 1 else -(-tokens // size) + len(taken))
        chunks = []
        for sequence, new in taken:
            need = -(-(sequence.computed + new) // size) - sequence.held
            self.pool.take(need)
            sequence.blank += need
            chunks.append(Chunk(new, sequence.computed, sequence.computed + new == sequence.known, sequence))
            sequence.computed += new
            self.prompt_tokens += new
        return chunks

    def _in_tiers(self, sequence: RadixSequence, have: int) -> Found | None:
        """What slower tiers have of a prompt beyond what the card has; it is loaded while the step runs."""
        if self.tiers is None or not self.options.enable_prefix_caching:
            return None
        size = self.options.block_size
        spans = [(key, end) for key, _, end in sequence.segments(sequence.known)]
        return self.tiers.find(spans, have, (sequence.known - 1) // size * size, self._now_s)

    def _find(self, sequence: RadixSequence) -> tuple[int, Node]:
        if not self.options.enable_prefix_caching:
            return 0, self.tree.root
        return self.tree.match(sequence.segments(sequence.known), sequence.known - 1)

    def _cached_tokens(self, sequence: Sequence) -> int:
        assert isinstance(sequence, RadixSequence)
        if not self.options.enable_prefix_caching:
            return 0
        found, _ = self.tree.match(sequence.segments(sequence.known), sequence.known)
        return min(found, sequence.known - 1)

    def _order_queue(self) -> None:
        policy = self.options.schedule_policy
        refreshing = policy in (SchedulePolicy.FCFS, SchedulePolicy.LOF)
        super()._order_queue()
        if not refreshing or not self.waiting or self.sglang.radix_eviction_policy is not EvictionPolicy.LRU:
            return
        self._refreshes += 1
        if self._refreshes % REFRESH_EVERY == 1 and self.options.enable_prefix_caching:
            for sequence in list(self.waiting)[MATCH_MAX - 1 :: -1]:
                assert isinstance(sequence, RadixSequence)
                self.tree.match(sequence.segments(sequence.known), sequence.known)

    # The tree

    def _keep(self, sequence: Sequence, tokens: int) -> None:
        """Enter its first ``tokens`` into the tree, and hold them there instead."""
        assert isinstance(sequence, RadixSequence)
        if not self.options.enable_prefix_caching or sequence.shipped:
            return  # decode servers keep no tree
        size, tree = self.options.block_size, self.tree
        segments, whole = sequence.segments(tokens), tokens // size * size
        already, _ = tree.insert(segments, whole, sequence.counted)
        sequence.counted = max(sequence.counted, whole)
        prompt = min(tokens, sequence.request.prompt_tokens) // size * size
        if 0 < prompt < whole:
            tree.insert(segments, prompt, prompt)  # the prompt can outlive the output
        _, node = tree.match(segments, whole)
        if self.tiers is not None:
            self.tiers.store(first_tokens([(key, end) for key, _, end in segments], whole), self._now_s)
        self.pool.blank += (already - sequence.owned) // size
        tree.unlock(sequence.node)
        tree.lock(node)
        sequence.node, sequence.owned = node, whole
        sequence.keyed, sequence.blank = whole // size, -(-sequence.computed // size) - whole // size

    def _finish(self, sequence: Sequence) -> None:
        self._keep(sequence, sequence.computed)
        del self.running[sequence]
        self._give_up(sequence)
        self._full = False

    def _give_up(self, sequence: Sequence) -> None:
        assert isinstance(sequence, RadixSequence)
        self.pool.blank += sequence.blank
        self.tree.unlock(sequence.node)
        sequence.begin(self.tree.root)
        sequence.keyed = sequence.blank = 0

    # Decoding

    def _make_room(self) -> None:
        size = self.options.block_size
        if self._has_pages(len(self._dial[self.clock % size])):
            self._decay_ratio()
        else:
            self._retract()
        self.pool.ensure(self.decodes)
        self.pool.take(len(self._dial[self.clock % size]))

    def _has_pages(self, count: int) -> bool:
        self.pool.ensure(count)
        return self.pool.blank >= count

    def _retract(self) -> None:
        due = self._dial[self.clock % self.options.block_size]
        batch = [one for one in self.running if one.joined_at >= 0]
        batch.sort(
            key=lambda one: (one.generated + self.clock - one.joined_at, -one.request.prompt_tokens),
            reverse=True,
        )
        gone: list[Sequence] = []
        while len(batch) > 1 and (not gone or not self._has_pages(len(due))):
            sequence = batch.pop()
            self._leave(sequence)
            del self.running[sequence]
            self._give_up(sequence)
            self.pool.ensure(-(-len(batch) * RETRACT_DECODE_STEPS // self.options.block_size))
            sequence.computed = 0
            sequence.preemptions += 1
            self.preempted += 1
            gone.append(sequence)
        for sequence in batch:
            del self.running[sequence]
            self.running[sequence] = None
        made = sum(one.generated + self.clock - one.joined_at for one in batch)
        wanted = sum(one.request.output_tokens for one in batch)
        self.new_token_ratio = min(1.0, (made + RETRACT_DECODE_STEPS * len(batch)) / (wanted + 1))
        for sequence in gone:
            sequence.came_at = self.prompt_tokens
            self.waiting.append(sequence)
        if gone:
            self._full = False

    def _decay_ratio(self) -> None:
        self.new_token_ratio = max(self.new_token_ratio - self._decay, self._least_ratio)
