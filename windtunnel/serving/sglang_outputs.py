"""SGLang's decode server (0.5.23): pages are set aside for a prompt before a prefill server computes it.

``DecodePreallocQueue``: requests get pages in the order of arrival, while ``num_reserved_decode_tokens`` stay free for
each that runs, waits or is on its way, and the longest of those that run could still come to its end. Their caches come
(``DecodeTransferQueue``), and they join the batch as it has places. There is no tree. Where decoding finds no page,
those with the fewest output tokens are retracted; their cache is kept in host memory, and they come back, before any
new one gets pages, without being computed again. Copies to host memory and back are taken to cost no time.

With overlap a request that ends takes part in one more step, whose token nobody needs: this loop does not leave it out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable

from windtunnel.serving.prefill_budget import CLIP_MAX_NEW_TOKENS, SglangOptions
from windtunnel.serving.radix_pool import RadixSequence
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_batch import SglangBatch
from windtunnel.serving.sglang_prompts import BUFFERS_A_PLACE
from windtunnel.serving.step_plan import StepPlan

FEW_PLACES, ROWS_A_PLACE = 32, 2
"""Up to so many places a rank there are further rows, two a place, for requests on their way."""


class OutputQueues(SglangBatch):
    """What stands before the batch.

    Requests move from ``asked`` to ``coming`` (pages set aside), ``waiting`` (cache there) and the batch; ``retracted``
    ones to ``waiting``, too. ``set_aside``: numbers of those that were given pages, for whoever tells the prefill side.
    ``answered``: those whose first token was all they asked for.
    """

    def __init__(self, options: SchedulerOptions, sglang: SglangOptions) -> None:
        super().__init__(options, sglang)
        self.asked: deque[RadixSequence] = deque()
        self.coming: dict[int, RadixSequence] = {}
        self.retracted: deque[RadixSequence] = deque()
        self.set_aside: list[int] = []
        self.answered: list[Sequence] = []
        self._came: set[int] = set()
        self._changed = False  # since the queues were looked at
        places, extra = options.max_num_seqs, sglang.disaggregation_decode_extra_slots
        if extra is None:
            extra = ROWS_A_PLACE * places if places <= FEW_PLACES else 0
        self._rows = places + extra

    def add(self, request: Request, shipped: bool = False) -> RadixSequence:
        """Queue a request, whose prompt will be computed elsewhere."""
        sequence = self._new(request)
        sequence.begin(self.tree.root)
        sequence.shipped = True
        self.asked.append(sequence)
        self._changed = True
        return sequence

    def arrive(self, number: int) -> None:
        """A request's cache and its first token are there."""
        self._came.add(number)
        self._changed = True

    @property
    def busy(self) -> bool:
        """See ``Scheduler``; what only waits for others is none of it."""
        return bool(self.running or self.waiting or self._changed)

    @property
    def queued(self) -> int:
        """See ``Scheduler``."""
        return len(self.asked) + len(self.coming) + len(self.waiting) + len(self.retracted)

    def fits(self, request: Request) -> bool:
        """Whether the request can be given pages, and come back where it is retracted before its last token."""
        room = self.pool.capacity * self.options.block_size
        ends = request.prompt_tokens + min(request.output_tokens, CLIP_MAX_NEW_TOKENS)
        return self._whole(request.last_tokens) + self._reserved <= room and ends <= room

    def _cached_tokens(self, sequence: Sequence) -> int:
        return 0

    def _new(self, request: Request) -> RadixSequence:
        return RadixSequence(request, self.pool, self.options.block_size, reuse=False)

    # The batch

    @property
    @abstractmethod
    def _taking_part(self) -> int:
        """Sequences of the last step that was decided; those that are done with it still count."""

    @abstractmethod
    def _took_part(self) -> Iterable[Sequence]:
        """They themselves."""

    @abstractmethod
    def _known_tokens(self) -> int:
        """Their prompts and known output: what retracting all of them would give back."""

    # Queues

    @property
    def _reserved(self) -> int:
        return self.sglang.num_reserved_decode_tokens

    @property
    def _active(self) -> int:
        """Requests with pages; those that ended with the last step still count."""
        return self._taking_part + len(self.coming) + len(self.waiting)

    @property
    def _rows_left(self) -> int:
        return self._rows - len(self.running) - len(self.coming) - len(self.waiting)

    @property
    def _buffers_left(self) -> int:
        return BUFFERS_A_PLACE * self.options.max_num_seqs - len(self.coming)

    @property
    def _free_tokens(self) -> int:
        return self.pool.blank * self.options.block_size

    @property
    def _blocked(self) -> bool:
        """Whether the first in the queue gets no pages however far those that run go."""
        if self._rows_left <= 0 or self._buffers_left <= 0:
            return True
        least = self._whole(self.asked[0].request.prompt_tokens) + self._reserved
        return least > self._free_tokens - self._reserved * self._active

    def _whole(self, tokens: int) -> int:
        size = self.options.block_size
        return -(-tokens // size) * size

    def _give_pages(self, sequence: RadixSequence, tokens: int) -> None:
        """Give it pages for its first ``tokens``."""
        pages = -(-tokens // self.options.block_size)
        self.pool.take(pages)
        sequence.computed, sequence.blank = tokens, pages

    def _look(self, now_s: float) -> list[RadixSequence]:
        """Go through the queues; those that join the batch now."""
        places = self.options.max_num_seqs - self._taking_part
        self._resume()
        if not self.retracted:
            self._set_pages_aside()
            self._take_arrived()
        joining: list[RadixSequence] = []
        while self.waiting and places > 0:
            sequence = self.waiting.popleft()
            assert isinstance(sequence, RadixSequence)
            places -= 1
            if sequence.first_s < 0:
                sequence.first_s, sequence.generated = now_s, 1
            if sequence.generated >= sequence.request.output_tokens:
                self._give_up(sequence)
                self.answered.append(sequence)
            else:
                self.running[sequence] = None
                joining.append(sequence)
            self._changed = True
        return joining

    def _resume(self) -> None:
        back: list[RadixSequence] = []
        active = self._active
        while self.retracted and self._rows_left - len(back) > 0:
            sequence = self.retracted[0]
            tokens = sequence.known - 1
            if self._whole(tokens) + self._reserved > self._free_tokens - self._reserved * (
                active + len(back)
            ):
                break
            self._give_pages(sequence, tokens)
            back.append(self.retracted.popleft())
        self.waiting.extend(back)
        self._changed |= bool(back)

    def _set_pages_aside(self) -> None:
        if not self.asked or self._blocked:
            return
        active, known, longest = self._active, self._known_tokens(), 0
        batch = [one.request for one in self._took_part()]
        if batch:
            ends = (one.prompt_tokens + min(one.output_tokens, CLIP_MAX_NEW_TOKENS) for one in batch)
            longest = max(ends) - known
        given = 0
        while self.asked and self._rows_left > 0 and self._buffers_left > 0:
            request = self.asked[0].request
            ends_at = request.prompt_tokens + min(request.output_tokens, CLIP_MAX_NEW_TOKENS)
            wanted = max(self._whole(request.prompt_tokens) + self._reserved, ends_at - known)
            if wanted > self._free_tokens - max(self._reserved * (active + given), longest):
                break
            sequence = self.asked.popleft()
            self._give_pages(sequence, request.prompt_tokens)
            self.coming[request.number] = sequence
            self.set_aside.append(request.number)
            given += 1
        self._changed |= given > 0

    def _take_arrived(self) -> None:
        for number in [number for number in self.coming if number in self._came]:
            self.waiting.append(self.coming.pop(number))
            self._came.remove(number)

    def _queue_again(self, sequence: Sequence) -> None:
        assert isinstance(sequence, RadixSequence)
        self.retracted.append(sequence)


class OutputServer(OutputQueues):
    """Without drafts: those that decode move by one token a step."""

    def __init__(self, options: SchedulerOptions, sglang: SglangOptions) -> None:
        super().__init__(options, sglang)
        self.lingers = options.async_scheduling
        self._ended: list[Sequence] = []  # took part in the last step that was decided, and are done

    def schedule(self, now_s: float) -> StepPlan:
        """Look at the queues, then decide the next step; an empty plan when nothing can run."""
        self._now_s = now_s
        under_way = self.decided is not None
        while True:
            self._changed = bool(self._ended)
            joining = self._look(now_s)
            self._ended.clear()
            for sequence in joining:
                self._join(sequence)
            plan = self._decode()
            if not plan.empty or not self._changed or under_way:
                return plan

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """Take note that the step ended; the answer is the sequences that are done."""
        if plan is self.decided:
            self.decided = None
        done = [one for one in plan.ends if one in self.running]
        for sequence in done:
            if sequence.joined_at >= 0:
                self._leave(sequence)
            del self.running[sequence]
            self._give_up(sequence)
        self.dropped.clear()
        self._ended += done
        self._changed |= bool(done)
        return done

    def steady(self, most: int) -> int:
        """Steps that only decode, while no request can be given pages."""
        if self._changed or not self.decodes or (self.asked and not self.retracted and not self._blocked):
            return 0
        return self._steps_with_pages(most)

    @property
    def _taking_part(self) -> int:
        return self.decodes + len(self._ended)

    def _took_part(self) -> Iterable[Sequence]:
        return (*self.running, *self._ended)

    def _known_tokens(self) -> int:
        unseen = self.decodes if self.decided is not None else 0
        ended = sum(one.request.prompt_tokens + one.request.output_tokens for one in self._ended)
        return self.contexts + self.decodes - unseen + ended

    def _decode(self) -> StepPlan:
        due = self._dial[self.clock % self.options.block_size]
        if self.decodes and not self._has_pages(len(due)):
            self._retract_but(0)
            self._changed = True
        if self.decodes:
            self._take_pages()
        return self._decide(())
