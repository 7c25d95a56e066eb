"""SGLang's rules (0.5.23) with drafted tokens for models with recurrent state.

States of drafts lie in a pool beside (``memory.StatePool``): none of them is held here. A check that passes a multiple
of the tracking interval leaves the state there. Where the last check brings more than was asked for and that state
lies beyond it, the one before it enters the tree, if the engine runs ahead and so kept two; with ``no_buffer`` nothing
does.
"""

from __future__ import annotations

from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_checks import CheckedSequence
from windtunnel.serving.sglang_drafting import SglangDraftingScheduler
from windtunnel.serving.sglang_states import SglangStateScheduler


class SglangStateDraftingScheduler(SglangDraftingScheduler, SglangStateScheduler):
    """``slots``: see ``SglangStateScheduler``."""

    pairs = False

    def __init__(self, options: SchedulerOptions, sglang: SglangOptions, slots: int) -> None:
        SglangStateScheduler.__init__(self, options, sglang, slots)
        self._begin_checks(options)

    def _passed(self, one: CheckedSequence, tokens: int) -> None:
        interval = self._interval
        if one.computed // interval > (one.computed - tokens) // interval:
            one.earlier, one.tracked = one.tracked, one.computed // interval * interval

    def _keep(self, sequence: Sequence, tokens: int) -> None:
        assert isinstance(sequence, CheckedSequence)
        super()._keep(sequence, tokens)
        sequence.earlier = 0

    def _leave_to_tree(self, sequence: Sequence, tokens: int) -> None:
        assert isinstance(sequence, CheckedSequence)
        after = sequence.tracked
        if self._copies:
            after = tokens if tokens == sequence.computed else 0
        elif after > tokens:
            after = sequence.earlier if self._tracking == 2 and sequence.earlier <= tokens else 0
        self._drop_states(sequence)
        if after and (self._tracking or self._copies) and not sequence.shipped:
            self._enter(sequence, after)
