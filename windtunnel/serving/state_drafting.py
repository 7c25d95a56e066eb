"""vLLM's scheduler with drafted tokens for models with recurrent state, as 0.33 decides every step.

Every draft leaves a state, in a block of its own, since it may be the last one accepted: a sequence holds a state and
one more for each draft, and as it grows a block for the next state; those of drafts move on with it. Prompts are cut
and states found again as in ``hybrid``, blocks found again only with the token after them, as in ``drafting``.
"""

from __future__ import annotations

from windtunnel.serving.draft_admission import LOOKAHEAD
from windtunnel.serving.draft_sequence import DraftingSequence
from windtunnel.serving.drafting import DraftingScheduler
from windtunnel.serving.kv_cache import Hit
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.state_blocks import Slot, cut_at_states, find_states, key_at, state_key
from windtunnel.serving.step_plan import StepPlan


class StateDraftingSequence(DraftingSequence):
    """``slots``: states held, by their block's index, first to last. ``length``: blocks of states, held or let go of.

    ``begun``: whether it has the states of drafts. ``hit``: states found at admission, after ``found`` blocks.
    ``marked``: blocks that were looked at for keys.
    """

    __slots__ = ("begun", "found", "hit", "junction", "length", "marked", "slots")

    def reset(self) -> None:
        """Nothing held."""
        self.slots: dict[int, Slot] = {}
        self.length = self.marked = self.found = self.junction = 0
        self.begun = False
        self.hit: list[Hit] = []

    def key_at(self, index: int) -> int:
        """A number for the block at ``index`` and all before it."""
        return key_at(index, self.parts, self.output_key)


class StateDraftingScheduler(DraftingScheduler):
    """Decides as ``DraftingScheduler`` does, with states to hold and cuts to keep."""

    def __init__(self, options: SchedulerOptions) -> None:
        super().__init__(options)
        self._groups = options.state_groups
        self._fresh: set[int] = set()  # keys of states made in this step: not to be found in it

    def add(self, request: Request, shipped: bool = False) -> StateDraftingSequence:
        """See ``Scheduler``."""
        options = self.options
        one = StateDraftingSequence(
            request, self.pool, options.block_size, options.enable_prefix_caching, LOOKAHEAD
        )
        one.begin()
        one.reset()
        one.shipped = shipped
        self.waiting.append(one)
        return one

    def fits(self, request: Request) -> bool:
        """See ``Scheduler``."""
        last = request.last_tokens + 2 * self._count
        states = (2 + self.options.async_scheduling + self._count) * self._groups
        return -(-last // self.options.block_size) + states <= self.pool.capacity

    def schedule(self, now_s: float) -> StepPlan:
        """See ``Scheduler``."""
        self._fresh.clear()
        return super().schedule(now_s)

    # Running sequences

    def _cut(self, one: DraftingSequence, start: int, new: int) -> int:
        """Tokens of the next chunk, at most ``new``: ends where the state has to be kept."""
        assert isinstance(one, StateDraftingSequence)
        options = self.options
        if not options.enable_prefix_caching:
            return new
        return cut_at_states(
            start, new, options.block_size, options.max_num_batched_tokens, one.known, one.request.prompt_tokens,
            one.junction,
        )  # fmt: skip

    def _room_for(self, one: DraftingSequence, new: int) -> bool:
        assert isinstance(one, StateDraftingSequence)
        size = self.options.block_size
        last = (one.computed - one.in_flight - 1) // size
        if self.options.enable_prefix_caching and one.slots and next(iter(one.slots)) < last:
            self._let_go(one, [index for index in one.slots if index < last])
        tokens = one.computed + new
        need = max(0, -(-(tokens + self._count) // size) - one.held)
        states = self._state_blocks(one, tokens)
        if one.begun and not need and not states:
            return True
        while need + states > self.pool.free:
            if self._preempt_last() is one:
                return False
        self.pool.take(need)
        one.blank += need
        self._grow(one, tokens)
        return True

    def _blocks_for(self, one: DraftingSequence, new: int) -> int:
        return super()._blocks_for(one, new) + self._state_blocks(one, one.computed + new)

    def _bound(self, one: DraftingSequence) -> int:
        """Where it next needs a block, begins, lets go of or keeps a state; a token early where that is simpler."""
        assert isinstance(one, StateDraftingSequence)
        size, count = self.options.block_size, self._count
        needs = one.held * size - 2 * count
        if not self.options.enable_prefix_caching:
            return needs
        lets_go = (next(iter(one.slots)) + 1) * size + 1 if one.slots else needs
        return min(needs, (one.length - count) * size - count, (one.marked + 1) * size, lets_go)

    def _state_blocks(self, one: DraftingSequence, tokens: int) -> int:
        assert isinstance(one, StateDraftingSequence)
        if not self.options.enable_prefix_caching:
            return 0 if one.begun else (1 + self._count) * self._groups
        if one.begun:
            grows = -(-tokens // self.options.block_size) + self._count > one.length
            return self._groups if grows else 0
        if one.hit and one.hit[0][0].key in self._fresh:
            return self.pool.capacity + 1
        missing = -(-tokens // self.options.block_size) + self._count - (one.length or one.found)
        idle = self.pool.idle_among(one.hit)
        return max(0, min(missing, 1 + self._count)) * self._groups + idle

    def _grow(self, one: DraftingSequence, tokens: int) -> None:
        """Those of drafts move on, one is new (all are, in the beginning)."""
        assert isinstance(one, StateDraftingSequence)
        count, begun = self._count, one.begun
        one.begun = True
        if not self.options.enable_prefix_caching:
            if not begun:
                self._hold(one, 1 + count)
            return
        required = -(-tokens // self.options.block_size) + count
        if required <= one.length:
            return
        before, passed = one.length, required - count - 1
        one.length = max(before, passed)
        if begun:
            for index in range(before - count, min(before, passed)):
                slot = one.slots.pop(index, None)
                if slot is not None:
                    one.slots[one.length] = Slot(one.length)
                    one.length += 1
        self._hold(one, required - one.length)

    def _hold(self, one: StateDraftingSequence, count: int) -> None:
        self.pool.take(count * self._groups)
        for _ in range(count):
            one.slots[one.length] = Slot(one.length)
            one.length += 1

    def _let_go(self, one: StateDraftingSequence, indices: list[int]) -> None:
        """Give states back, group after group, tails before heads."""
        for group in range(self._groups):
            for index in reversed(indices):
                slot = one.slots[index]
                if slot.runs:
                    self.pool.drop(slot, slot.runs[group])
                else:
                    self.pool.blank += 1
        for index in indices:
            del one.slots[index]
        if indices:
            self.pool.version += 1

    def _keep(self, one: DraftingSequence, tokens: int) -> None:
        assert isinstance(one, StateDraftingSequence)
        full = min(tokens, one.known - LOOKAHEAD) // self.options.block_size
        if full <= one.marked or not self.options.enable_prefix_caching:
            return
        super()._keep(one, tokens)
        for index in range(one.marked, full):
            slot = one.slots.get(index)
            if slot is None or slot.runs:
                continue
            key = state_key(one.key_at(index))
            for group in range(self._groups):
                self.pool.register(slot, key + group, 0, 1)
            self._fresh.add(key)
        one.marked = full

    def _give_back(self, one: DraftingSequence) -> None:
        assert isinstance(one, StateDraftingSequence)
        super()._give_back(one)
        self._let_go(one, sorted(one.slots))
        one.reset()

    # Prompts

    def _look_up(self, one: Sequence) -> tuple[list[Hit], int]:
        assert isinstance(one, StateDraftingSequence)
        one.hit, one.found, one.junction = [], 0, 0
        if not self.options.enable_prefix_caching:
            return [], 0
        size = self.options.block_size
        found, end, one.hit, blocks = find_states(
            self.pool, one.lookup(), (one.known - 1) // size, self._groups, one.key_at
        )
        one.found, one.junction = end, blocks * size
        return found, end

    def _adopt_states(self, one: DraftingSequence) -> None:
        assert isinstance(one, StateDraftingSequence)
        one.length = one.marked = one.found
        if one.hit:
            slot = one.slots[one.found - 1] = Slot(one.found - 1)
            self.pool.touch(slot, one.hit)
            one.hit = []
