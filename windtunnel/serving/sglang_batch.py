"""What runs under SGLang's rules (0.5.23): the tree of prefixes, pages, decoding and retraction.

Every prompt enters the tree when it is computed, every output when it is done; what a sequence has in the tree is
locked. When a decode step finds no pages even after eviction, sequences with the fewest output tokens are *retracted*:
their cache is given up and they queue again. What admission expects of running sequences, ``new_token_ratio`` of
their remaining output, decays with every decode step and is set from what remains after a retraction.

An engine that runs ahead (overlap scheduling) knows the tokens and the prompts of the step under way only by their
number: they enter the tree when it ends, sequences that end with it keep their pages and places until then, and a
retracted sequence loses its token of that step.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from windtunnel.serving.kv_tiers import KvTiers, first_tokens
from windtunnel.serving.prefill_budget import CLIP_MAX_NEW_TOKENS, SglangOptions
from windtunnel.serving.radix_pool import RadixPool, RadixSequence
from windtunnel.serving.radix_tree import Node, RadixTree
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.segments import Segments
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import Chunk, StepPlan

INIT_NEW_TOKEN_RATIO, MIN_NEW_TOKEN_RATIO_FACTOR, DECAY_STEPS = 0.7, 0.14, 600
RETRACT_DECODE_STEPS = 20


class SglangBatch(Scheduler):
    """The running sequences. ``_full``: nobody is admitted before something changes. ``_cut``: the prompt under way."""

    pool: RadixPool

    def __init__(
        self, options: SchedulerOptions, sglang: SglangOptions, tiers: KvTiers | None = None
    ) -> None:
        super().__init__(options, tiers)
        self.sglang = sglang
        self.tree = self._new_tree()
        self.tree.tail = sglang.tail_threshold - sglang.next_prompt_estimate
        self.pool = RadixPool(options.num_gpu_blocks, self.tree)
        first = min(INIT_NEW_TOKEN_RATIO * sglang.schedule_conservativeness, 1.0)
        self._least_ratio = min(first * MIN_NEW_TOKEN_RATIO_FACTOR, 1.0)
        self._decay = (first - self._least_ratio) / DECAY_STEPS
        self._first_ratio = self.new_token_ratio = first
        self._full = False
        self._cut: RadixSequence | None = None
        self._now_s = self._loaded_s = 0.0

    def _new_tree(self) -> RadixTree:
        return RadixTree(self.options.block_size, self.sglang.radix_eviction_policy)

    def steady(self, most: int) -> int:
        """Steps that only decode and evict nothing."""
        if self._cut is not None or not self.decodes or (self.waiting and not self._full):
            return 0
        return self._steps_with_pages(most)

    def _steps_with_pages(self, most: int) -> int:
        left, steps, size = self.pool.blank, 0, self._block
        most = max(0, min(most, self._next_end() - self.clock - 1))
        if left >= self.decodes * (1 - -most // size):
            return most
        if size == 1:
            return min(most, left // self.decodes)
        while steps < most and left >= self.decodes:
            left -= len(self._dial[(self.clock + steps) % size])
            steps += 1
        return steps

    def advance(self, steps: int) -> None:
        """Take ``steps`` steady steps at once."""
        super().advance(steps)
        for _ in range(steps):
            self._decay_ratio()
            if self.new_token_ratio <= self._least_ratio:
                break

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """Take note that the step ended; the answer is the sequences that are done."""
        self._now_s = now_s
        if plan is self.decided:
            self.decided = None
        mixed = self.decided is not None and self.decided.decodes > 0 and bool(self.decided.chunks)
        ends, done = dict.fromkeys(plan.ends), []
        for chunk in plan.chunks:
            sequence = chunk.sequence
            if not chunk.ends or sequence not in self.running or sequence in self.dropped:
                continue
            if sequence.first_s < 0:
                sequence.first_s = now_s
            if sequence in ends:
                del ends[sequence]
                self._finish(sequence)
                done.append(sequence)
            else:  # in a mixed step after it, its first output token counts as part of the prompt
                self._keep(sequence, sequence.computed + int(mixed and self._decodes_now(sequence)))
        for sequence in ends:
            if sequence in self.running:
                self._finish(sequence)
                done.append(sequence)
        self.dropped.clear()
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
        if not self.running:
            self.decided = None

    @property
    def _leaving(self) -> list[Sequence]:
        """Sequences that are done when the step under way is: they hold pages and places still."""
        return [one for one in self.decided.ends if one in self.running] if self.decided else []

    def _unseen(self) -> set[Sequence]:
        """Sequences with a token in the step under way, whose number alone is known."""
        if self.decided is None:
            return set()
        prompts = {chunk.sequence for chunk in self.decided.chunks if chunk.ends}
        return prompts | {one for one in self.running if self._decodes_now(one)}

    def _expected_output(self) -> float:
        """Tokens that running sequences are estimated to still need."""
        ratio, clock, unseen = self.new_token_ratio, self.clock, self._unseen()
        leaving = set(self._leaving)
        return 0.0 + sum(
            min((one.ends_at - clock if one.joined_at >= 0 else 0) + (one in unseen), CLIP_MAX_NEW_TOKENS)
            * ratio
            for one in self.running
            if one.joined_at >= 0 or one in leaving
        )

    def _decide(self, chunks: Seq[Chunk], decoding: bool = True, loaded_s: float = 0.0) -> StepPlan:
        alone = not self.decodes
        before = list(self.running) if decoding and chunks else []
        prompts = [chunk.sequence for chunk in chunks if chunk.ends]
        for sequence in prompts:  # a batch runs in the order in which prompts were completed
            del self.running[sequence]
            self.running[sequence] = None
        plan = super()._decide(chunks, decoding, loaded_s)
        if plan.decodes and chunks:  # and those of a mixed step after its prompts
            for sequence in before:
                if sequence not in prompts and sequence is not self._cut:
                    del self.running[sequence]
                    self.running[sequence] = None
        if len(prompts) < len(chunks) or (prompts and alone) or (plan.decodes and chunks):
            self._full = False
        return plan

    # Decoding

    def _decode(self) -> StepPlan:
        """A step of all that run but those that are done after the step under way."""
        leaving = self._leaving
        if leaving:
            self._full = False
        if not self.decodes:
            return self._decide(())
        size = self.options.block_size
        if self._has_pages(len(self._dial[self.clock % size])):
            self._decay_ratio()
        elif leaving:  # their pages are free when it ends
            return self._decide((), decoding=False)
        else:
            self._retract()
        self._take_pages()
        return self._decide(())

    def _take_pages(self) -> None:
        self.pool.ensure(self.decodes)
        self.pool.take(len(self._dial[self.clock % self.options.block_size]))

    def _has_pages(self, count: int) -> bool:
        self.pool.ensure(count)
        return self.pool.blank >= count

    def _retract(self) -> None:
        self._retract_but(1)

    def _retract_but(self, least: int) -> None:
        """Give up those with the fewest output tokens until the rest has pages; ``least`` of them stay."""
        due, unseen = self._dial[self.clock % self.options.block_size], self._unseen()

        def told(one: Sequence) -> int:
            return one.generated + self.clock - one.joined_at - (one in unseen)

        batch = [one for one in self.running if one.joined_at >= 0]
        batch.sort(key=lambda one: (told(one), -one.request.prompt_tokens), reverse=True)
        gone: list[Sequence] = []
        while len(batch) > least and (not gone or not self._has_pages(len(due))):
            sequence = batch.pop()
            self._leave(sequence)
            if sequence in unseen:
                sequence.generated -= 1
                self.dropped.add(sequence)
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
        made = sum(map(told, batch))
        wanted = sum(one.request.output_tokens for one in batch)
        self.new_token_ratio = min(1.0, (made + RETRACT_DECODE_STEPS * len(batch)) / (wanted + 1))
        for sequence in gone:
            self._queue_again(sequence)
        if gone:
            self._full = False

    def _queue_again(self, sequence: Sequence) -> None:
        sequence.came_at = self.prompt_tokens
        self.waiting.append(sequence)

    def _decay_ratio(self) -> None:
        self.new_token_ratio = max(self.new_token_ratio - self._decay, self._least_ratio)

    # The tree

    def _keep(self, sequence: Sequence, tokens: int) -> None:
        """Enter its first ``tokens`` into the tree, and hold them there instead."""
        assert isinstance(sequence, RadixSequence)
        if not self.options.enable_prefix_caching or sequence.shipped:
            return  # decode servers keep no tree
        size, tree = self.options.block_size, self.tree
        segments, whole = sequence.segments(tokens), sequence.keyable(tokens) // size * size
        already, node = tree.insert(segments, whole, sequence.counted)
        sequence.counted = max(sequence.counted, whole)
        prompt = sequence.keyable(min(tokens, sequence.request.prompt_tokens)) // size * size
        if 0 < prompt < whole:
            tree.insert(segments, prompt, prompt, 1)  # the prompt can outlive the output
        node = tree.use(node, segments, whole)
        self._write_through(segments, whole)
        self._hold(sequence, node, whole, already)

    def _write_through(self, segments: Segments, tokens: int) -> None:
        """To every tier beyond the card."""
        if self.tiers is not None:
            self.tiers.store(first_tokens([(key, end) for key, _, end in segments], tokens), self._now_s)

    def _hold(self, sequence: RadixSequence, node: Node, whole: int, already: int) -> None:
        """Hold its first ``whole`` tokens in the tree, of which it had ``already`` when they were entered."""
        size = self.options.block_size
        self.pool.blank += (already - sequence.owned) // size
        self.tree.unlock(sequence.node)
        self.tree.lock(node)
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
