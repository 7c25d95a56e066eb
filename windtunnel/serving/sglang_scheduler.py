"""Admission by SGLang's rules (0.5.23): prompts first, over a radix tree; ``sglang_batch`` has what runs.

A step computes prompts where any can be admitted, else every running sequence by one token; with ``enable_mixed_chunk``
the running sequences join a step of prompts where they have pages. A prompt is admitted while its tokens, its output
(clipped) and a page fit beside what running sequences are estimated to still need: their remaining output times
``new_token_ratio``, which starts at 0.7 × ``schedule_conservativeness`` and decays over 600 decode steps to a seventh.

One prompt at a time may be cut to ``chunked_prefill_size``. Requests are taken to ask for exactly the output that they
get (``max_new_tokens``); real clients often ask for more.
"""

from __future__ import annotations

from windtunnel.serving.kv_tiers import Found, KvTiers
from windtunnel.serving.prefill_budget import (
    CLIP_MAX_NEW_TOKENS,
    NO_TOKEN,
    OTHER,
    PrefillBudget,
    SglangOptions,
)
from windtunnel.serving.queue_order import MATCH_MAX, SchedulePolicy
from windtunnel.serving.radix_pool import RadixSequence, prompt_segments
from windtunnel.serving.radix_tree import EvictionPolicy, Node
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_batch import SglangBatch
from windtunnel.serving.step_plan import Chunk, StepPlan

REFRESH_EVERY = 32
"""Looks at the queue after which the prefixes of waiting requests count as used again."""


class SglangScheduler(SglangBatch):
    """Decides as SGLang does; counts as ``Scheduler`` does."""

    def __init__(
        self, options: SchedulerOptions, sglang: SglangOptions, tiers: KvTiers | None = None
    ) -> None:
        super().__init__(options, sglang, tiers)
        self.chunk = sglang.chunked_prefill_size or options.max_num_batched_tokens
        self._mixes = sglang.enable_mixed_chunk and self.chunk > 0
        self._refreshes = 0

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

    def schedule(self, now_s: float) -> StepPlan:
        """Decide the next step; an empty plan when nothing can run."""
        if self._cut is not None:
            self._keep(self._cut, self._cut.computed)
        self._now_s, self._loaded_s = now_s, 0.0
        chunks = self._prefill(now_s)
        if not chunks:
            return self._decode()
        mixed = self._mixes and self.decodes > 0
        if self._mixes and self._leaving:
            self._full = False
        if mixed:
            mixed = self._has_pages(len(self._dial[self.clock % self.options.block_size]))
        if mixed:
            self._take_pages()
            self.prompt_tokens += self.decodes
        return self._decide(chunks, mixed, self._loaded_s)

    # Prompts

    def _prefill(self, now_s: float) -> list[Chunk]:
        options, running = self.options, self._places_taken
        if not running:
            self._full = False
        if (self._full or not self.waiting) and self._cut is None:
            return []
        if running >= options.max_num_seqs and self._cut is None:
            self._full = True
            return []
        self._order_queue()
        most, expected = self.sglang.max_prefill_tokens, self._expected_output()
        budget = PrefillBudget(self.pool, most, self.chunk, expected, running if self._mixes else 0)
        taken: list[tuple[RadixSequence, int]] = []
        if self._cut is not None:
            taken.append((self._cut, self._go_on(self._cut, budget)))
            if taken[0][0].computed + taken[0][1] == taken[0][0].known:
                self._cut = None
        admitted = 0
        for waiting in self.waiting:
            if budget.has_room and budget.spent:
                break
            if len(taken) >= options.max_num_seqs - running:
                self._full = True
            if self._full:
                break
            assert isinstance(waiting, RadixSequence)
            if waiting.shipped and not waiting.generated:
                if not self._take_in(waiting, now_s):
                    self._full = running > 0
                    break
                admitted += 1
                continue
            new = self._try(waiting, budget, bool(taken))
            if new > 0:
                taken.append((waiting, new))
                admitted += 1
            if new == NO_TOKEN or (new > 0 and not budget.has_room):
                self._full = bool(taken) or running > 0
                break
            if new == OTHER or budget.spent:
                break
        for _ in range(admitted):
            self.waiting.popleft()
        return self._compute_all(taken)

    @property
    def _places_taken(self) -> int:
        """Places of sequences that are not part of the next step of prompts."""
        return self.decodes + len(self._leaving)

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
        self.tree.lock(node)
        new = NO_TOKEN
        if self._asks(sequence, found) < budget.total:
            if more is not None:
                found += more.tokens
            new = self._fit(sequence, found, budget, others)
        if new <= 0:
            self.tree.unlock(node)
            return new
        self._begin(sequence, node, found)
        if more is not None:
            assert self.tiers is not None
            self._loaded_s = max(self._loaded_s, self.tiers.load(more, self._now_s))
            sequence.owned = found - more.tokens
            self.pool.take(more.tokens // size)
            self._keep(sequence, found)
        far = more.tokens if more is not None else 0
        if sequence.admitted_s < 0 and self.tiers is not None:
            self.tiers.count(sequence.known - 1 - found + far)
        self._admitted(sequence, found, far)
        self._charge(sequence, found, new, budget)
        return new

    def _asks(self, sequence: RadixSequence, found: int) -> int:
        """Tokens of cache that it is admitted for: the rest of its prompt, its output, and a page."""
        output = min(sequence.request.output_tokens - sequence.generated, CLIP_MAX_NEW_TOKENS)
        return sequence.known - found + output + self.options.block_size

    def _fit(self, sequence: RadixSequence, found: int, budget: PrefillBudget, others: bool) -> int:
        """Tokens after the first ``found`` that the step can still compute."""
        size, left = self.options.block_size, sequence.known - found
        whole = -(-left // size) * size
        if left <= 0 or (self.chunk < 0 and others and whole >= budget.input):
            return OTHER
        if whole <= budget.chunk:
            return left
        new = (found + budget.chunk // size * size) // size * size - found
        return new if new > 0 else OTHER

    def _begin(self, sequence: RadixSequence, node: Node, found: int) -> None:
        """Run it, holding its first ``found`` tokens in the tree up to ``node``."""
        sequence.node, sequence.owned = node, found
        sequence.computed = found
        sequence.keyed, sequence.blank = found // self.options.block_size, 0
        self.running[sequence] = None

    def _admitted(self, sequence: RadixSequence, found: int, far: int) -> None:
        """Count what it found the first time; ``far``: of it beyond the card."""
        if sequence.admitted_s < 0:
            sequence.admitted_s = self._now_s
            sequence.cached_tokens = found
            self.queries += sequence.request.prompt_tokens
            self.hits += found - far

    def _charge(self, sequence: RadixSequence, found: int, new: int, budget: PrefillBudget) -> None:
        ends = found + new == sequence.known
        if not ends:
            self._cut = sequence
        budget.reserve(new, min(sequence.request.output_tokens, CLIP_MAX_NEW_TOKENS) if ends else 0)

    def _take_in(self, sequence: RadixSequence, now_s: float) -> bool:
        """Run a sequence whose prompt was computed elsewhere, if it fits beside output kept free for all."""
        size = self.options.block_size
        reserved = self.sglang.num_reserved_decode_tokens * (self.decodes + 1)
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
        asked = sequence.known - 1
        return self.tree.match(sequence.segments(asked), sequence.keyable(asked))

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
        if not refreshing and len(self.waiting) == 1:
            self._cached_tokens(self.waiting[0])  # looked up whole, which may split a node of the tree
        if not refreshing or not self.waiting or self.sglang.radix_eviction_policy is not EvictionPolicy.LRU:
            return
        self._refreshes += 1
        if self._refreshes % REFRESH_EVERY == 1 and self.options.enable_prefix_caching:
            for sequence in list(self.waiting)[MATCH_MAX - 1 :: -1]:
                assert isinstance(sequence, RadixSequence)
                self.tree.match(sequence.segments(sequence.known), sequence.known)
