"""SGLang's prefill server (0.5.23): prompts wait until a decode server has set pages aside for them.

A request stands in ``PrefillBootstrapQueue`` until then, and queues as elsewhere afterwards. A computed prompt keeps
its pages, its place and its first token's buffer until its cache has crossed the network (the inflight queue). Nothing
decodes here, so admission expects no output but one token a prompt.
"""

from __future__ import annotations

from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.radix_pool import RadixSequence
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_host import SglangHostScheduler
from windtunnel.serving.sglang_scheduler import SglangScheduler
from windtunnel.serving.step_plan import StepPlan

BUFFERS_A_PLACE = 2
"""Buffers for first tokens, on either side (``ReqToMetadataIdxAllocator``)."""


class PromptServer(SglangScheduler):
    """``asked``: requests without pages on the decode side, by number, in the order of arrival.

    ``shipping``: computed prompts whose caches are on their way. Requests come with one output token.
    """

    def __init__(
        self, options: SchedulerOptions, sglang: SglangOptions, tiers: KvTiers | None = None
    ) -> None:
        super().__init__(options, sglang, tiers)
        self.asked: dict[int, RadixSequence] = {}
        self.shipping: dict[int, RadixSequence] = {}
        self._granted: set[int] = set()
        self._buffers = BUFFERS_A_PLACE * options.max_num_seqs

    def add(self, request: Request, shipped: bool = False) -> RadixSequence:
        """Queue a request, which waits for ``grant``."""
        sequence = super().add(request)
        self.waiting.pop()
        self.asked[request.number] = sequence
        return sequence

    @property
    def queued(self) -> int:
        """See ``Scheduler``."""
        return len(self.waiting) + len(self.asked)

    def grant(self, number: int) -> None:
        """The decode side has set pages aside for a request."""
        self._granted.add(number)

    def release(self, number: int) -> None:
        """A prompt's cache has arrived: what it held here can be found again."""
        sequence = self.shipping.pop(number)
        self._keep(sequence, sequence.computed)
        del self.running[sequence]
        self._give_up(sequence)
        self._buffers += 1

    def schedule(self, now_s: float) -> StepPlan:
        """See ``Scheduler``."""
        self._full = False
        if self._granted and self._buffers:
            for number in [number for number in self.asked if number in self._granted][: self._buffers]:
                sequence = self.asked.pop(number)
                self._granted.remove(number)
                self._buffers -= 1
                sequence.came_at = self.prompt_tokens
                self.waiting.append(sequence)
        return super().schedule(now_s)

    @property
    def _places_taken(self) -> int:
        return len(self.running) - (self._cut is not None)

    def _expected_output(self) -> float:
        return 0.0

    def _finish(self, sequence: Sequence) -> None:
        assert isinstance(sequence, RadixSequence)
        self._keep(sequence, sequence.computed)
        self.shipping[sequence.request.number] = sequence


class HostPromptServer(PromptServer, SglangHostScheduler):
    """With host memory behind the card."""
