"""What schedulers of all engines have in common: a queue, a batch, and steps that are decided and completed.

A step costs what changes in it, not how many run (``decode_batch``). ``vllm_scheduler``, ``hybrid`` and
``sglang_scheduler`` have the engines' rules.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence as Seq

from windtunnel.serving.decode_batch import DecodeBatch
from windtunnel.serving.kv_cache import BlockPool
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.queue_order import SchedulePolicy, order_of
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import Chunk, StepPlan

INFINITY = float("inf")


class Scheduler(DecodeBatch):
    """One engine's queues, batch and cache.

    ``schedule`` decides a step and counts it as done but for what it releases; ``complete`` releases that. Either they
    alternate, or the engine runs ahead: each step is decided when the one before it begins, and completed after that.

    Attributes:
        running: in the order of admission. decided: the last step, until it is completed.
        dropped: sequences whose token of the step under way is thrown away.
        gained: tokens that the last step brought a sequence, where that may be more than one.
        lists_decoded: whether plans say which sequences decode.
        puts_off_prompts: whether the next step is decided without prompts (``attention_dp``).
    """

    def __init__(self, options: SchedulerOptions, tiers: KvTiers | None = None) -> None:
        super().__init__(options.block_size)
        self.options = options
        self.tiers = tiers
        self.pool = BlockPool(options.num_gpu_blocks)
        self.waiting: deque[Sequence] = deque()
        self.running: dict[Sequence, None] = {}
        self.prompt_tokens = 0  # computed so far
        self.queries = 0
        self.hits = 0
        self.preempted = 0
        self.decided: StepPlan | None = None
        self.dropped: set[Sequence] = set()
        self.gained: dict[Sequence, int] = {}
        self.lists_decoded = False
        self.puts_off_prompts = False

    bursts = False
    """Whether sequences move by as many tokens as were accepted; else by one a step, drafts spread evenly."""
    lingers = False
    """Whether a sequence takes part in the step after its last token, too (see ``sglang_outputs``)."""

    @abstractmethod
    def add(self, request: Request, shipped: bool = False) -> Sequence:
        """Queue a request; ``shipped``: its prompt's cache and first token come with it."""

    @abstractmethod
    def fits(self, request: Request) -> bool:
        """Whether the request, with all its output, can ever be held."""

    @abstractmethod
    def schedule(self, now_s: float) -> StepPlan:
        """Decide the next step; an empty plan when nothing can run."""

    @abstractmethod
    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """Take note that the step ended; the answer is the sequences that are done."""

    @abstractmethod
    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence that nobody waits for any more; between steps only."""

    @abstractmethod
    def steady(self, most: int) -> int:
        """Steps, at most ``most``, that only decode and after which nobody is done.

        0 when the next step may do more, or when blocks may run out on the way.
        """

    @abstractmethod
    def _cached_tokens(self, sequence: Sequence) -> int:
        """Tokens of its prompt that the cache has."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.running or self.waiting)

    @property
    def queued(self) -> int:
        """Sequences that do not run yet."""
        return len(self.waiting)

    @property
    def prompt_ready(self) -> bool:
        """Whether a step that is decided now would compute prompts."""
        return bool(self.waiting)

    @property
    def wakes_s(self) -> float:
        """When the next cache from a slower tier arrives; infinity: none is on its way."""
        return INFINITY

    @property
    def held_s(self) -> float:
        """When the step that was decided first can begin: its blocks are still being written out until then."""
        return 0.0

    @property
    def waits_s(self) -> float:
        """Until when the engine itself waits for that, and decides nothing."""
        return 0.0

    @property
    def noted_s(self) -> float:
        """When the engine can take note of the step under way: deciding the next, it waits for blocks until then."""
        return 0.0

    def advance(self, steps: int) -> None:
        """Take ``steps`` steady steps at once, with the blocks that fall due in them."""
        size, dial = self.options.block_size, self._dial
        turns, rest = divmod(steps, size)
        first = self.clock % size
        due = turns * self.decodes + sum(map(len, dial[first : first + rest]))
        if first + rest > size:
            due += sum(map(len, dial[: first + rest - size]))
        if due:
            self.pool.take(due)
        self.clock += steps
        self.contexts += steps * self.decodes
        if self.decided:
            self.decided = StepPlan(self.decodes, self.contexts - self.decodes, ())

    def _decide(self, chunks: Seq[Chunk], decoding: bool = True, loaded_s: float = 0.0) -> StepPlan:
        """The step of these prompt chunks, and of all that decode; what comes after it counts with it done."""
        decodes, contexts = (self.decodes, self.contexts) if decoding else (0, 0)
        stalls = self.decodes > decodes
        decoded = (
            tuple(one for one in self.running if one.joined_at >= 0) if self.lists_decoded and decodes else ()
        )
        if decodes:
            self.clock += 1
            self.contexts += decodes
            if not chunks and self.clock not in self._ends:
                plan = self.decided = StepPlan(decodes, contexts, (), loaded_s, (), stalls, decoded)
                return plan
        ends: list[Sequence] = []
        if decodes:
            for sequence in self._ends.pop(self.clock, ()):
                if sequence.ends_at == self.clock and sequence.joined_at >= 0:
                    if not self.lingers:
                        self._leave(sequence)
                    ends.append(sequence)
        for chunk in chunks:
            sequence = chunk.sequence
            if chunk.ends:
                sequence.generated += 1
                if sequence.generated >= sequence.request.output_tokens:
                    ends.append(sequence)
                else:
                    self._join(sequence)
        plan = StepPlan(decodes, contexts, tuple(chunks), loaded_s, tuple(ends), stalls, decoded)
        self.decided = None if plan.empty else plan
        return plan

    def _in_flight(self, sequence: Sequence) -> int:
        """Tokens of it in a step that was decided and is not completed."""
        chunks = self.decided.chunks if self.decided else ()
        prompt = next((chunk.new for chunk in chunks if chunk.sequence is sequence), 0)
        return prompt or int(self._decodes_now(sequence))

    def _decodes_now(self, sequence: Sequence) -> bool:
        """Whether a step that was decided and is not completed gives it a token after its prompt."""
        plan = self.decided
        if plan is None or not plan.decodes:
            return False
        if sequence.joined_at >= 0:
            return sequence.joined_at < self.clock
        return sequence in plan.ends and all(chunk.sequence is not sequence for chunk in plan.chunks)

    def _order_queue(self) -> None:
        policy = self.options.schedule_policy
        if policy is SchedulePolicy.FCFS or len(self.waiting) < 2:
            return
        queue = list(self.waiting)
        order = order_of(
            policy,
            [one.request for one in queue],
            lambda place: self._cached_tokens(queue[place]),
            lambda place: self.prompt_tokens - queue[place].came_at,
        )
        self.waiting = deque(queue[place] for place in order)

    def _arrived(self, sequence: Sequence, blocks: int, now_s: float) -> None:
        sequence.blank += blocks
        sequence.register(sequence.computed)
        sequence.generated = 1
        sequence.first_s = now_s
        self._join(sequence)
