"""SGLang's decode server (0.5.23) with drafted tokens: its queues before a batch of checks."""

from __future__ import annotations

from collections.abc import Iterable

from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.radix_pool import RadixSequence
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_checks import CheckedSequence, Step
from windtunnel.serving.sglang_drafting import SglangDraftingScheduler
from windtunnel.serving.sglang_outputs import OutputQueues
from windtunnel.serving.step_plan import StepPlan


class DraftingOutputServer(OutputQueues, SglangDraftingScheduler):
    """Nobody is left out of a check because it may be done before."""

    def __init__(self, options: SchedulerOptions, sglang: SglangOptions) -> None:
        super().__init__(options, sglang)
        self._begin_checks(options)

    def add(self, request: Request, shipped: bool = False) -> CheckedSequence:
        """See ``OutputQueues``."""
        sequence = super().add(request)
        assert isinstance(sequence, CheckedSequence)
        return sequence

    def fits(self, request: Request) -> bool:
        """See ``OutputQueues``; the last check needs room, too."""
        room = self.pool.capacity * self.options.block_size
        return super().fits(request) and self._whole(request.last_tokens + self._reserve) <= room

    @property
    def busy(self) -> bool:
        """See ``SglangDraftingScheduler``."""
        return super().busy or self.decided is not None

    def schedule(self, now_s: float) -> StepPlan:
        """See ``OutputServer``."""
        self._now_s = now_s
        under_way = self.decided is not None
        while True:
            self._changed = any(one not in self.running for one in self._batch)
            joining = self._look(now_s)
            batch = [one for one in self._batch if one in self.running]
            self._batch = batch + [one for one in joining if isinstance(one, CheckedSequence)]
            before = len(self._batch)
            plan = self._plan(Step((), (), self._decode()))
            self._changed |= len(self._batch) < before
            if not plan.empty or not self._changed or under_way:
                return plan

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """See ``Scheduler``."""
        done = SglangDraftingScheduler.complete(self, plan, now_s)
        self._changed |= bool(done)
        return done

    def steady(self, most: int) -> int:
        """Every step is decided by itself."""
        return 0

    def _new(self, request: Request) -> RadixSequence:
        sequence = CheckedSequence(request, self.pool, self.options.block_size, reuse=False)
        sequence.begin_checks(pairs=False)
        return sequence

    def _give_pages(self, sequence: RadixSequence, tokens: int) -> None:
        super()._give_pages(sequence, tokens)
        assert isinstance(sequence, CheckedSequence)
        sequence.allocated = tokens

    @property
    def _taking_part(self) -> int:
        return len(self._batch)

    def _took_part(self) -> Iterable[Sequence]:
        return self._batch

    def _known_tokens(self) -> int:
        return sum(one.computed + 1 for one in self._batch)

    def _without_finishing(self) -> bool:
        return False

    def _retract(self) -> None:
        self._retract_but(0)
