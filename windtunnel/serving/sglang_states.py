"""SGLang's rules (0.5.23) for models with recurrent state: states in a pool of their own, found again in the tree.

A running sequence holds the state it computes and, to keep older ones in, one more (two where the engine runs ahead:
``--mamba-radix-cache-strategy extra_buffer``, the default for Qwen3.5 but for engines that do not run ahead and have
pages of one token). A chunk of a prompt leaves the state after its last whole 64 tokens (or page, if that is larger),
counted from where the chunk began, or after the *junction*: the last such place up to which the tree knows the prompt
without a state. Decoding leaves one every 256 tokens, but none in a step mixed with prompts; the last one enters
the tree when the sequence is done. A prompt that finds a state takes a copy of it, admitted or not.

With ``no_buffer`` a sequence holds the state it computes alone. Every chunk leaves a copy of it, wherever it ends; the
tree takes the state itself over when the sequence is done.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from math import lcm

from windtunnel.serving.prefill_budget import PrefillBudget, SglangOptions, StateStrategy
from windtunnel.serving.radix_pool import RadixSequence, prompt_segments
from windtunnel.serving.radix_tree import Node
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_scheduler import SglangScheduler
from windtunnel.serving.state_tree import StateTree
from windtunnel.serving.step_plan import Chunk, StepPlan

KERNEL_CHUNK = 64
"""Tokens that the kernels of gated delta rules take at a time, and after each of which a state can be kept."""
TRACK_INTERVAL = 256
"""``--mamba-track-interval``: decoded tokens from one kept state to the next."""
STATES_BESIDE = 3
"""States for each running sequence beside those to keep older ones in: its own, the one found, one in between."""


def tracking_states(ahead: bool) -> int:
    """States that a sequence holds to keep older ones in."""
    return 2 if ahead else 1


def states_per_sequence(ahead: bool, reuse: bool, buffered: bool = True) -> int:
    """States that SGLang wants for each running sequence before it admits more; ``buffered``: ``extra_buffer``."""
    if not reuse:
        return 1
    return STATES_BESIDE + tracking_states(ahead) if buffered else STATES_BESIDE


class StateSequence(RadixSequence):
    """``states``: held. In tokens, ``tracked``: where the newest kept state is, ``prefilled``: where decoding began.

    ``decoded``: where decoding left the newest one, once it is over.
    """

    __slots__ = ("decoded", "junction", "prefilled", "states", "tracked")

    def reset(self) -> None:
        """Nothing held."""
        self.states = self.tracked = self.junction = self.prefilled = self.decoded = 0


class SglangStateScheduler(SglangScheduler):
    """``slots``: states that the card has room for; at least ``states_per_sequence`` for each that may run."""

    tree: StateTree

    def __init__(self, options: SchedulerOptions, sglang: SglangOptions, slots: int) -> None:
        super().__init__(options, sglang)
        self.slots = slots
        self._held = 0
        self._grid = max(KERNEL_CHUNK, options.block_size)
        self._interval = lcm(TRACK_INTERVAL, self._grid)
        self._mixed_at: set[int] = set()  # clocks of mixed steps, in which decoding leaves no state
        ahead, reuse = options.async_scheduling, options.enable_prefix_caching
        strategy = sglang.mamba_radix_cache_strategy.chosen(ahead, options.block_size)
        self._copies = reuse and strategy is StateStrategy.NO_BUFFER
        self._tracking = tracking_states(ahead) if reuse and not self._copies else 0

    def _new_tree(self) -> StateTree:
        return StateTree(self.options.block_size, self.sglang.radix_eviction_policy)

    def add(self, request: Request, shipped: bool = False) -> StateSequence:
        """Queue a request; ``shipped``: its prompt's cache, state and first token come with it."""
        if not self.busy:
            self.new_token_ratio = self._first_ratio  # an idle engine forgets
        sequence = StateSequence(request, self.pool, self.options.block_size, reuse=False)
        sequence.prompt = prompt_segments(request)
        sequence.begin(self.tree.root)
        sequence.reset()
        sequence.shipped = shipped
        sequence.came_at = self.prompt_tokens
        self.waiting.append(sequence)
        return sequence

    @property
    def free_states(self) -> int:
        """States that neither a sequence nor the tree has."""
        return self.slots - self._held - self.tree.states

    def _take_states(self, sequence: StateSequence, count: int) -> None:
        """Hold ``count`` more, evicting where there are too few."""
        missing = count - self.free_states
        if missing > 0:
            self.pool.blank += self.tree.evict_states(missing) // self.options.block_size
        assert self.free_states >= count, "no room for a state: too many sequences run"
        self._held += count
        sequence.states += count

    def _drop_states(self, sequence: StateSequence) -> None:
        self._held -= sequence.states
        sequence.states = 0

    # Prompts

    def _try(self, sequence: RadixSequence, budget: PrefillBudget, others: bool) -> int:
        new = super()._try(sequence, budget, others)
        if new <= 0:
            assert isinstance(sequence, StateSequence)
            self._drop_states(sequence)
        return new

    def _find(self, sequence: RadixSequence) -> tuple[int, Node]:
        """What is found of a prompt; its state is copied."""
        assert isinstance(sequence, StateSequence)
        if not self.options.enable_prefix_caching:
            return 0, self.tree.root
        found, node, whole = self.tree.look(sequence.segments(sequence.known), sequence.known - 1)
        junction = whole // self._grid * self._grid
        sequence.junction = junction if junction > found else 0
        if node.state:
            self.tree.lock(node)
            self._take_states(sequence, 1)
            self.tree.unlock(node)
        return found, node

    def _compute_all(self, taken: list[tuple[RadixSequence, int]]) -> list[Chunk]:
        short: list[tuple[StateSequence, int]] = []
        for sequence, new in taken:
            assert isinstance(sequence, StateSequence)
            if sequence.states <= 1:
                short.append((sequence, 1 + self._tracking - sequence.states))
            self._track(sequence, new)
        missing = sum(count for _, count in short) - self.free_states
        if missing > 0:
            self.pool.blank += self.tree.evict_states(missing) // self.options.block_size
        for one, count in short:
            self._take_states(one, count)
        return super()._compute_all(taken)

    def _track(self, sequence: StateSequence, new: int) -> None:
        """Note after which token a chunk of ``new`` leaves a state."""
        grid, context = self._grid, sequence.computed
        sequence.prefilled = context + new
        if self._copies:
            sequence.tracked = context + new
        if new < grid or not self._tracking:
            return
        after = new // grid * grid
        last = new if after == new // KERNEL_CHUNK * KERNEL_CHUNK else after + 1
        to_junction = sequence.junction - context
        if 0 < to_junction < last and not to_junction % grid:
            after = to_junction
        sequence.tracked = context + after

    def _take_in(self, sequence: RadixSequence, now_s: float) -> bool:
        taken = super()._take_in(sequence, now_s)
        if taken:
            assert isinstance(sequence, StateSequence)
            self._take_states(sequence, 1)
            sequence.prefilled = sequence.computed
        return taken

    # Decoding

    def _decide(self, chunks: Seq[Chunk], decoding: bool = True, loaded_s: float = 0.0) -> StepPlan:
        if chunks and decoding and self.decodes:
            self._mixed_at.add(self.clock + 1)
        return super()._decide(chunks, decoding, loaded_s)

    def _leave(self, sequence: Sequence) -> None:
        super()._leave(sequence)
        assert isinstance(sequence, StateSequence)
        interval = self._interval
        after, began = sequence.computed // interval * interval, self.clock - sequence.computed
        while after > sequence.prefilled and began + after in self._mixed_at:
            after -= interval
        sequence.decoded = after if after > sequence.prefilled else 0

    # The tree

    def _keep(self, sequence: Sequence, tokens: int) -> None:
        """Enter what it has up to its newest kept state, for which it takes another."""
        assert isinstance(sequence, StateSequence)
        after, sequence.tracked = sequence.tracked, 0
        if not after or sequence.shipped:
            return
        self._take_states(sequence, 1)
        self._held -= 1  # the tree has it now, or had it
        sequence.states -= 1
        self._enter(sequence, after)

    def _enter(self, sequence: StateSequence, after: int) -> None:
        whole = after // self.options.block_size * self.options.block_size
        already, node, _ = self.tree.keep(sequence.segments(whole), whole, sequence.counted)
        sequence.counted = max(sequence.counted, whole)
        self._hold(sequence, node, whole, already)

    def _finish(self, sequence: Sequence) -> None:
        assert isinstance(sequence, StateSequence)
        after = sequence.computed if self._copies else sequence.decoded or sequence.tracked
        self._drop_states(sequence)
        if after and (self._tracking or self._copies) and not sequence.shipped:
            self._enter(sequence, after)
        del self.running[sequence]
        self._give_up(sequence)
        self._full = False

    def _give_up(self, sequence: Sequence) -> None:
        assert isinstance(sequence, StateSequence)
        super()._give_up(sequence)
        self._drop_states(sequence)
        sequence.reset()
