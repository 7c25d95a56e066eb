"""vLLM's OffloadingConnector (0.33) in virtual time: what is offered to host memory, found there, and when it moves.

Every step offers the full blocks of prompts that it completes (not those of outputs: ``offload_prompt_only``, the
default). As model runner V2 drives it on a card: stores of a step are submitted when the next one is launched, loads
behind the forward pass of their step; a transfer follows all that was launched before it and the transfer before it in
its direction. What has ended is looked up at the launch of a step and known when that step is over. A step whose
blocks are still being written out waits for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from windtunnel.serving.host_cache import Access, HostCache
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.sequence import Sequence

_PLACES = 24
INFINITY = float("inf")


class Job:
    """One transfer of one sequence: ``blocks`` of host memory, and ``far`` ones that come from storage.

    ``kept``: those of the latter that stay in host memory.
    """

    __slots__ = ("blocks", "ends_s", "far", "kept", "loads", "owner")

    def __init__(self, owner: Offloaded, blocks: list[int], loads: bool) -> None:
        self.owner = owner
        self.blocks = blocks
        self.loads = loads
        self.far: list[int] = []
        self.kept: list[int] = []
        self.ends_s = INFINITY


class Offloaded:
    """One sequence: its blocks' keys, how many were offered, and what is on its way."""

    __slots__ = ("access", "done", "jobs", "keys", "offered", "sequence")

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.access = Access()
        self.keys = [key << _PLACES | at for key, count in sequence.parts for at in range(count)]
        self.offered = 0
        self.jobs: set[Job] = set()
        self.done = False

    def blocks(self, first: int, end: int) -> list[tuple[int, int]]:
        """Keys and places of some of its blocks."""
        for at in range(len(self.keys) - self.sequence.known_blocks, end - self.sequence.known_blocks):
            self.keys.append(self.sequence.output_key << _PLACES | at)
        return [(self.keys[place], place + 1) for place in range(first, end)]


@dataclass(slots=True)
class Launch:
    """A step as the worker got it. ``held_s``: its forward pass begins no earlier. ``over``: what it reports."""

    at_s: float
    forward: bool
    loads: list[Job]
    stores: list[Job]
    flush: dict[Job, None]
    held_s: float = 0.0
    over: list[Job] = field(default_factory=list)


class Offloading:
    """The connector of one rank and its worker. ``most``: steps that may be launched and not over."""

    def __init__(self, tiers: KvTiers, block_tokens: int, most: int) -> None:
        host = tiers.tiers[0]
        self.host = HostCache(host.spec.capacity_tokens // block_tokens)
        self._near = host
        self._far = tiers.tiers[1] if len(tiers.tiers) > 1 else None
        self._size = block_tokens
        moved = block_tokens * host.spec.token_bytes
        self._read_s, self._write_s = moved / host.spec.read_bytes_per_s, moved / host.spec.write_bytes_per_s
        self.most = most
        self.steps: deque[Launch] = deque()  # launched, not over
        self._states: dict[Sequence, Offloaded] = {}
        self._loads: list[Job] = []
        self._loading: set[int] = set()
        self._gone: list[Sequence] = []  # done since the last launch
        self._flush: dict[Job, None] = {}
        self._fenced: dict[int, Job] = {}  # blocks of sequences that are done, still being written out
        self._unsubmitted: list[Job] = []
        self._reads: deque[Job] = deque()
        self._writes: deque[Job] = deque()
        self._read_free_s = self._write_free_s = self._free_s = 0.0
        self.behind: dict[Sequence, None] = {}  # whose offer was refused

    # What the scheduler asks

    @property
    def next_s(self) -> float:
        """When the next transfer ends; infinity: none is on its way."""
        return min((line[0].ends_s for line in (self._reads, self._writes) if line), default=INFINITY)

    @property
    def pending(self) -> bool:
        """Whether anything is on its way, or should be."""
        return bool(self._reads or self._writes or self._unsubmitted or self._gone or self._loads)

    @property
    def quiet(self) -> bool:
        """Whether steps pass without any transfer."""
        return not (self.pending or self.behind or any(step.stores or step.over for step in self.steps))

    @property
    def held_s(self) -> float:
        """When the forward pass of the oldest step under way can begin."""
        return self.steps[0].held_s if self.steps else 0.0

    def look_up(self, sequence: Sequence, have: int, now_s: float) -> tuple[int, int] | None:
        """Blocks after the first ``have`` that host memory has, and that storage has after those; None: ask later."""
        state = self._state(sequence)
        state.offered = 0
        if state.jobs:
            return None
        keys = [key for key, _ in state.blocks(0, sequence.known // self._size)]
        end, later = have, False
        while end < len(keys) and (there := self.host.has(keys[end])) is not False:
            later |= there is None
            end += 1
        far = end
        if self._far is not None and not later:
            shelf = self._far.shelf
            while far < len(keys) and shelf.has(keys[far], now_s):
                far += 1
        if later or (self._loading and not self._loading.isdisjoint(keys[have:far])):
            return None
        return end - have, far - end

    def load(self, sequence: Sequence, have: int, near: int, far: int) -> None:
        """Load so many blocks of it from host memory and from storage, with the step that is being decided."""
        state = self._state(sequence)
        pairs = state.blocks(have, have + near + far)
        self.host.read(pairs[:near], state.access)
        job = Job(state, [key for key, _ in pairs[:near]], loads=True)
        job.far = [key for key, _ in pairs[near:]]
        if far:  # what comes from storage stays in host memory
            job.kept = self.host.offer(pairs[near:], state.access) or []
        state.offered = have + near + far
        state.jobs.add(job)
        self._loads.append(job)
        self._loading.update(job.blocks, job.far)
        self._near.read += near * self._size

    def asked(self, tokens: int) -> None:
        """Note that so many tokens were looked for."""
        self._near.asked += tokens
        if self._far is not None:
            self._far.asked += tokens

    def preempted(self, sequence: Sequence) -> None:
        """Its blocks are given up: the next step waits until they are written out."""
        self._flush.update(dict.fromkeys(self._state(sequence).jobs))
        self.behind.pop(sequence, None)

    def gone(self, sequence: Sequence) -> None:
        """It is done, or nobody waits for it: it is offered once more with the next step."""
        state = self._state(sequence)
        for job in state.jobs:
            if not job.loads:
                self._fenced.update(dict.fromkeys(job.blocks, job))
        self._gone.append(sequence)
        self.behind.pop(sequence, None)

    def named(self, parts: Iterable[tuple[int, int, int]]) -> set[int]:
        """The blocks of these parts (key, first, end), as far as anybody minds."""
        if not self._fenced and not self._gone:
            return set()
        return {key << _PLACES | at for key, first, end in parts for at in range(first, end)}

    # A step

    def launch(
        self, now_s: float, forward: bool, computed: Iterable[tuple[Sequence, int]], taken: set[int]
    ) -> None:
        """A step is decided: ``computed`` tokens of these sequences are there after it; blocks ``taken`` by it."""
        if self._fenced:
            self._flush.update((job, None) for block, job in self._fenced.items() if block in taken)
        stores = []
        for sequence, tokens in computed:
            stores += self.offer(sequence, tokens)
        for sequence in sorted(self._gone, key=lambda one: one.request.number):
            for job in self.offer(sequence, sequence.computed):
                stores.append(job)
                self._fenced.update(dict.fromkeys(job.blocks, job))
                if not taken.isdisjoint(job.blocks):
                    self._flush[job] = None
            state = self._states[sequence]
            self.host.finish(state.access)
            state.done = True
            self.behind.pop(sequence, None)
            if not state.jobs:
                del self._states[sequence]
        step = Launch(now_s, forward, self._loads, stores, self._flush)
        self._loads, self._flush = [], {}
        self._gone.clear()
        self.steps.append(step)
        if len(self.steps) == 1 or not any(other.forward for other in list(self.steps)[:-1]):
            self._submit(step)

    def turn(self) -> bool:
        """An engine without work looks at its oldest step; whether anything came of it."""
        told = False
        while len(self.steps) >= self.most and not self.steps[0].forward:
            told |= self._over(self.steps.popleft())
        return told

    def completed(self, now_s: float) -> None:
        """The oldest forward pass is over."""
        step = self.steps.popleft()
        self._free_s = now_s
        self._after(step)
        self._over(step)
        for following in self.steps:
            self._submit(following)

    @property
    def restless(self) -> bool:
        """Whether a further look would change anything though no time passes."""
        return bool(self._unsubmitted) or any(step.over for step in self.steps)

    # Transfers

    def _state(self, sequence: Sequence) -> Offloaded:
        state = self._states.get(sequence)
        if state is None:
            state = self._states[sequence] = Offloaded(sequence)
        return state

    def offer(self, sequence: Sequence, tokens: int) -> list[Job]:
        """Offer what is new among the first tokens of a prompt; at most one transfer."""
        state, end = self._state(sequence), min(tokens, sequence.request.prompt_tokens) // self._size
        if end <= state.offered:
            self.behind.pop(sequence, None)
            return []
        fresh = self.host.offer(state.blocks(state.offered, end), state.access)
        if fresh is None:
            self.behind[sequence] = None
            return []
        self.behind.pop(sequence, None)
        state.offered = end
        if not fresh:
            return []
        job = Job(state, fresh, loads=False)
        state.jobs.add(job)
        self._near.written += len(fresh) * self._size
        return [job]

    def _submit(self, step: Launch) -> None:
        """What the worker does before a forward pass, and after it where there is none."""
        for job in [job for job in step.stores if job in step.flush]:
            step.stores.remove(job)
            self._unsubmitted.append(job)
        for job in self._unsubmitted:
            begin = max(self._write_free_s, step.at_s, self._free_s)
            job.ends_s = self._write_free_s = begin + len(job.blocks) * self._write_s
            self._writes.append(job)
        self._unsubmitted.clear()
        waited = [job.ends_s for job in step.flush if job in job.owner.jobs]
        step.held_s = max([step.at_s, *waited])
        for line in (self._writes, self._reads):
            while line and line[0].ends_s <= step.held_s:
                step.over.append(line.popleft())
        if not step.forward:
            self._free_s = max(self._free_s, step.held_s)
            self._after(step)

    def _after(self, step: Launch) -> None:
        """What the worker does behind a forward pass."""
        for job in step.loads:
            begin = max(self._read_free_s, self._free_s, step.held_s)
            self._read_free_s = begin + (len(job.blocks) + len(job.far)) * self._read_s
            if job.far and self._far is not None:
                self._far.shelf.touch(job.far)
                self._far.read += len(job.far) * self._size
                self._read_free_s = max(self._read_free_s, self._far.fetch(len(job.far) * self._size, begin))
            job.ends_s = self._read_free_s
            self._reads.append(job)
        self._unsubmitted += step.stores
        step.loads, step.stores = [], []

    def _over(self, step: Launch) -> bool:
        """The scheduler is told which transfers have ended."""
        for job in step.over:
            state = job.owner
            state.jobs.discard(job)
            if job.loads:
                self.host.has_read(job.blocks)
                self.host.has_written(job.kept)
                self._loading.difference_update(job.blocks, job.far)
                state.sequence.loaded = True
            else:
                self.host.has_written(job.blocks)
                if self._far is not None:
                    self._far.write([(block, self._size) for block in job.blocks], job.ends_s)
                for block in job.blocks:
                    self._fenced.pop(block, None)
            if state.done and not state.jobs:
                self._states.pop(state.sequence, None)
        shelf = self._near.shelf
        shelf.stored, shelf.dropped = self.host.stored * self._size, self.host.dropped * self._size
        return bool(step.over)
