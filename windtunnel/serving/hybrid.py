"""Models whose layers keep recurrent state: blocks for states beside blocks for attention, as vLLM 0.33 aligns them.

State and attention blocks come from one pool and hold the same number of tokens; layers with state form
``state_groups`` groups, each with a block of its own. Prompts are cut at block ends, where the state is kept and
can be found again (``--mamba-cache-mode align``): a prefix counts as found up to the last block end at which all
groups still have their state. Where attention alone knows more of a prompt than any state (a *junction*), the
prompt stops there once, so that the next one finds it. A state found must not have been made in the same step.

A sequence holds the state it computes and the one before it; the older one goes back when the newer one is
begun, to be found or evicted. Since cuts leave budget over, several prompts may be under way at once, and a
prompt may take what later sequences would have decoded with: those wait a step.
"""

from __future__ import annotations

from windtunnel.serving.drafting import DraftingScheduler
from windtunnel.serving.kv_cache import Hit
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.offload_scheduler import OffloadScheduler
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.state_blocks import Slot, cut_at_states, find_states, key_at, state_key
from windtunnel.serving.state_drafting import StateDraftingScheduler
from windtunnel.serving.step_plan import Chunk, StepPlan
from windtunnel.serving.vllm_scheduler import VllmScheduler


def scheduler_for(options: SchedulerOptions, tiers: KvTiers | None = None) -> VllmScheduler:
    """The scheduler that these options need: states without reuse are one more block a group and sequence.

    Drafts come in bursts with vLLM's rules and without tiers; elsewhere they are spread evenly.
    """
    if options.num_speculative_tokens and tiers is None and not options.other_rules:
        return StateDraftingScheduler(options) if options.state_groups else DraftingScheduler(options)
    if options.state_groups > 0 and options.enable_prefix_caching:
        return HybridScheduler(options)
    return OffloadScheduler(options, tiers) if tiers is not None else VllmScheduler(options)


class HybridSequence(Sequence):
    """A sequence with states. ``length``: blocks up to the state being computed; ``place``: order of admission."""

    __slots__ = ("junction", "length", "place", "slots")

    def reset(self) -> None:
        """Nothing held."""
        self.slots: list[Slot] = []
        self.length = 0
        self.place = -1
        self.junction = 0

    def key_at(self, index: int) -> int:
        """A number for the block at ``index`` and all before it."""
        return key_at(index, self.parts, self.output_key)


class HybridScheduler(VllmScheduler):
    """Decides as ``VllmScheduler`` does, with states to hold and cuts to keep."""

    def __init__(self, options: SchedulerOptions) -> None:
        super().__init__(options)
        self._prompts: dict[HybridSequence, None] = {}  # under way
        self._joined: list[HybridSequence] = []  # decoding since the last step
        self._joined_before: list[HybridSequence] = []  # since the one before it, where the engine runs ahead
        self._lag = 2 if options.async_scheduling else 1
        self._paused: list[HybridSequence] = []
        self._fresh: set[int] = set()
        self._places = 0

    def add(self, request: Request, shipped: bool = False) -> HybridSequence:
        """Queue a request; ``shipped``: its prompt's cache, states and first token come with it."""
        options = self.options
        sequence = HybridSequence(request, self.pool, options.block_size, reuse=True)
        sequence.reset()
        sequence.shipped = shipped
        self.waiting.append(sequence)
        return sequence

    def fits(self, request: Request) -> bool:
        """Whether the request, with all its output, can ever be held."""
        blocks = -(-request.last_tokens // self.options.block_size)
        return blocks + (1 + self._lag) * self.options.state_groups <= self.pool.capacity

    def steady(self, most: int) -> int:
        """Steps that only decode, in which no block is begun or given back."""
        if self._prompts or self._joined or self._joined_before:
            return 0
        most, steps = super().steady(most), 0
        while steps < most and not any(self._due(self.clock + steps - back) for back in range(self._lag + 1)):
            steps += 1
        return steps if self.options.block_size > self._lag else 0

    def schedule(self, now_s: float) -> StepPlan:
        """Decide the next step; an empty plan when nothing can run."""
        self._fresh.clear()
        chunks: list[Chunk] = []
        before = self.preempted
        budget = self._run_on(chunks)
        if self.preempted == before:
            self._admit(chunks, budget, now_s)
        plan = self._decide(chunks)
        for sequence in self._paused:
            if sequence in self.running:
                self._join(sequence)
        self._paused.clear()
        return plan

    # Running sequences

    def _due(self, clock: int) -> dict[Sequence, None]:
        return self._dial[clock % self.options.block_size]

    def _run_on(self, chunks: list[Chunk]) -> int:
        """Decoding sequences and prompts under way, in their order; the answer is the budget left."""
        budget, groups = self.options.max_num_batched_tokens, self.options.state_groups
        due = self._due(self.clock)
        # the state before the last goes back when the step that began the last is completed
        after = [one for back in range(1, self._lag + 1) for one in self._due(self.clock - back)]
        touched = {*due, *after, *self._joined, *self._joined_before}
        easy = len(due) * (1 + groups) <= self.pool.free and not self._prompts and budget >= self.decodes
        self._joined_before = self._joined if self._lag > 1 else []
        self._joined = []
        if not touched and easy:
            return budget - self.decodes
        order = sorted(touched, key=_place) if easy else list(self.running)
        for sequence in order:
            assert isinstance(sequence, HybridSequence)
            if sequence not in self.running:
                continue  # preempted for one before it
            if sequence.joined_at < 0 and sequence not in self._prompts:
                continue  # its last step runs
            if sequence in self._prompts:
                new = self._cut(sequence, sequence.computed, min(sequence.known - sequence.computed, budget))
                if not new:
                    continue
                if not self._room_for(sequence, sequence.computed, new):
                    return 0
                self._compute_hybrid(sequence, new, chunks)
                budget -= new
                continue
            if not easy and not budget:
                self._leave(sequence)
                self._paused.append(sequence)
                continue
            budget -= not easy
            if sequence in touched:
                computed = sequence.computed + self.clock - sequence.joined_at
                if not self._room_for(sequence, computed, 1):
                    return 0
                if sequence in due:
                    self.pool.take(1 + groups)
                    sequence.slots.append(Slot(sequence.length))
                    sequence.length += 1
        return budget - self.decodes if easy else budget

    def _room_for(self, sequence: HybridSequence, computed: int, new: int) -> bool:
        """Give back states that are no longer needed, then preempt until the blocks of ``new`` tokens are free."""
        size = self.options.block_size
        there = computed - self._in_flight(sequence)
        self._drop(sequence, [slot for slot in sequence.slots if slot.index < (there - 1) // size], computed)
        end = -(-(computed + new) // size)
        held = -(-computed // size)
        need = end - held + (self.options.state_groups if end > sequence.length else 0)
        while need > self.pool.free:
            if self._preempt_last() is sequence:
                return False
        return True

    def _drop(self, sequence: HybridSequence, slots: list[Slot], computed: int) -> None:
        """Give slots back, group after group; states of whole blocks can be found again."""
        groups, size = self.options.state_groups, self.options.block_size
        for slot in slots:
            if not slot.runs and (slot.index + 1) * size <= computed:
                self._register(sequence, slot)
        for group in range(groups):
            for slot in reversed(slots):
                if slot.runs:
                    self.pool.drop(slot, slot.runs[group])
                else:
                    self.pool.blank += 1
        if slots:
            self.pool.version += 1
            sequence.slots = [slot for slot in sequence.slots if slot not in slots]

    def _register(self, sequence: HybridSequence, slot: Slot) -> None:
        key = state_key(sequence.key_at(slot.index))
        for group in range(self.options.state_groups):
            self.pool.register(slot, key + group, 0, 1)

    def _preempt_last(self) -> Sequence:
        sequence = next(reversed(self.running))
        assert isinstance(sequence, HybridSequence)
        self._prompts.pop(sequence, None)
        return super()._preempt_last()

    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence that nobody waits for any more; between steps only."""
        assert isinstance(sequence, HybridSequence)
        self._prompts.pop(sequence, None)
        for joined in (self._joined, self._joined_before):
            if sequence in joined:
                joined.remove(sequence)
        super().cancel(sequence)

    def _release(self, sequence: Sequence, in_flight: int = 0) -> None:
        assert isinstance(sequence, HybridSequence)
        computed = sequence.computed - in_flight
        super()._release(sequence, in_flight)
        self._drop(sequence, list(sequence.slots), computed)
        sequence.reset()

    def _join(self, sequence: Sequence) -> None:
        super()._join(sequence)
        assert isinstance(sequence, HybridSequence)
        self._joined.append(sequence)

    # Prompts

    def _cut(self, sequence: HybridSequence, start: int, new: int) -> int:
        """Tokens of the next chunk, at most ``new``: ends where the state has to be kept."""
        options = self.options
        return cut_at_states(
            start, new, options.block_size, options.max_num_batched_tokens, sequence.known,
            sequence.request.prompt_tokens, sequence.junction,
        )  # fmt: skip

    def _admit(self, chunks: list[Chunk], budget: int, now_s: float) -> None:
        options, pool = self.options, self.pool
        size, groups = options.block_size, options.state_groups
        while budget > 0 and self.waiting and len(self.running) < options.max_num_seqs:
            sequence = self.waiting[0]
            assert isinstance(sequence, HybridSequence)
            found, blocks, states = self._find(sequence)
            context = blocks * size
            shipped = sequence.shipped and not sequence.generated
            if shipped:
                found, blocks, states, context = [], 0, [], sequence.known
                new = 0
            else:
                new = self._cut(sequence, context, min(sequence.known - context, budget))
                if not new or (states and states[0][0].key in self._fresh):
                    return
            idle = pool.idle_among(found) + pool.idle_among(states)
            whole = -(-max(sequence.known, context + (new or 1)) // size) - blocks
            now = -(-(context + (new or 1)) // size) - blocks
            need = now + groups * min(1, now) + idle
            if max(need, whole + groups * min(1, whole) + idle) > pool.free:
                return
            self.waiting.popleft()
            sequence.place = self._places = self._places + 1
            pool.touch(sequence, found)
            sequence.keyed = blocks
            if states:
                slot = Slot(blocks - 1)
                pool.touch(slot, states)
                sequence.slots.append(slot)
            sequence.length = blocks
            self.running[sequence] = None
            if sequence.admitted_s < 0:
                sequence.admitted_s = now_s
                sequence.cached_tokens = context if not shipped else 0
                self.queries += sequence.request.prompt_tokens
                self.hits += sequence.cached_tokens
            sequence.computed = context
            if shipped:
                self.pool.take(now + groups)
                sequence.slots.append(Slot(now - 1))
                sequence.length = now
                self._arrived(sequence, now, now_s)
                continue
            self._compute_hybrid(sequence, new, chunks)
            budget -= new

    def _find(self, sequence: HybridSequence) -> tuple[list[Hit], int, list[Hit]]:
        """Attention blocks, how many, and the state at their end; notes the junction."""
        sequence.junction = 0
        if not self.options.enable_prefix_caching:
            return [], 0, []
        size = self.options.block_size
        found, end, states, blocks = find_states(
            self.pool,
            sequence.lookup(),
            (sequence.known - 1) // size,
            self.options.state_groups,
            sequence.key_at,
        )
        sequence.junction = blocks * size
        return found, end, states

    def _compute_hybrid(self, sequence: HybridSequence, new: int, chunks: list[Chunk]) -> None:
        size, groups = self.options.block_size, self.options.state_groups
        context = sequence.computed
        blocks = -(-(context + new) // size)
        self.pool.take(blocks - sequence.held)
        sequence.blank += blocks - sequence.held
        if blocks > sequence.length:
            self.pool.take(groups)
            sequence.slots.append(Slot(blocks - 1))
            sequence.length = blocks
        sequence.computed = context + new
        sequence.register(sequence.computed)
        if not sequence.computed % size and not sequence.slots[-1].runs:
            self._register(sequence, sequence.slots[-1])
            self._fresh.add(sequence.slots[-1].runs[0].key)
        ends = sequence.computed == sequence.known
        if ends:
            self._prompts.pop(sequence, None)
        else:
            self._prompts[sequence] = None
        chunks.append(Chunk(new, context, ends, sequence))


def _place(sequence: Sequence) -> int:
    assert isinstance(sequence, HybridSequence)
    return sequence.place
