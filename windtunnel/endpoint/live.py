"""A deployment that runs in real time, or ``speed`` times as fast: every token comes when its step ends.

Each replica is one task: decide a step, wait as long as the step takes, hand out its tokens. Requests and
cancellations take effect between steps. The clock is kept by deadlines, so that small delays do not add up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from windtunnel.serving.deployment import Deployment
from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.sequence import Sequence

RECENT = 65_536
"""Latencies kept for /metrics' sums stay exact; these many last ones are kept for looking at."""


@dataclass(slots=True)
class Stream:
    """One request under way. ``tokens`` receives one entry per step that yields a token; None ends it."""

    sequence: Sequence
    rank: Scheduler
    arrived_s: float
    tokens: asyncio.Queue[int | None] = field(default_factory=asyncio.Queue)
    sent: int = 0
    gone: bool = False


@dataclass(slots=True)
class Counters:
    """What /metrics reports, since the start. Times are the deployment's, not the wall's."""

    finished: int = 0
    cancelled: int = 0
    rejected: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    ttft_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    e2e_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    ttft_sum_s: float = 0.0
    e2e_sum_s: float = 0.0
    ttft_count: int = 0


class Overloaded(Exception):
    """The queue is full; ``retry_after_s`` says when to come again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"queue full, retry after {retry_after_s} s")
        self.retry_after_s = retry_after_s


class LiveEngine:
    """Replicas of ``deployment`` in real time. ``start`` and ``stop`` from a running event loop."""

    def __init__(self, deployment: Deployment, speed: float = 1.0, max_queue: int = 4096) -> None:
        self.deployment = deployment
        self.speed = speed
        self.max_queue = max_queue
        self.counters = Counters()
        self.replicas = deployment.start()
        self._streams: dict[Sequence, Stream] = {}
        self._wake = [asyncio.Event() for _ in self.replicas]
        self._tasks: list[asyncio.Task[None]] = []
        self._number = 0
        self._began = time.monotonic()
        self._closing = False

    def start(self) -> None:
        """Begin to step."""
        self._tasks = [
            asyncio.create_task(self._run(replica, wake))
            for replica, wake in zip(self.replicas, self._wake, strict=True)
        ]

    async def stop(self, patience_s: float = 30.0) -> None:
        """Take nothing new, let what runs finish for at most ``patience_s``, then end the tasks."""
        self._closing = True
        until = time.monotonic() + patience_s
        while self._streams and time.monotonic() < until:
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def now_s(self) -> float:
        """The deployment's clock."""
        return (time.monotonic() - self._began) * self.speed

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return sum(len(rank.running) for replica in self.replicas for rank in replica.ranks)

    @property
    def waiting(self) -> int:
        """Sequences in the queues."""
        return sum(len(rank.waiting) for replica in self.replicas for rank in replica.ranks)

    def submit(self, prompt_tokens: int, output_tokens: int, keys: tuple[int, ...]) -> Stream:
        """Queue a request. Raises Overloaded when the queue is full or the engine is closing."""
        if self._closing or self.waiting >= self.max_queue:
            self.counters.rejected += 1
            raise Overloaded(self._retry_after_s())
        number = self._number
        self._number += 1
        size = self.deployment.memory.block_tokens
        request = Request(number, self.now_s, prompt_tokens, output_tokens, keys, size if keys else 0)
        index = min(range(len(self.replicas)), key=lambda i: self.replicas[i].load)
        rank = min(self.replicas[index].ranks, key=lambda rank: len(rank.running) + 4 * len(rank.waiting))
        stream = Stream(rank.add(request), rank, request.arrival_s)
        self._streams[stream.sequence] = stream
        self._wake[index].set()
        return stream

    async def tokens(self, stream: Stream) -> AsyncIterator[int]:
        """Numbers of tokens as they come; leaving early cancels the request."""
        try:
            while (token := await stream.tokens.get()) is not None:
                yield token
        finally:
            if stream.sequence in self._streams:
                stream.gone = True

    def _retry_after_s(self) -> int:
        done = max(1, self.counters.finished)
        pace = max(1e-3, (time.monotonic() - self._began) / done)
        return max(1, min(60, round(pace * self.waiting / 2)))

    async def _run(self, replica: Replica, wake: asyncio.Event) -> None:
        deadline = time.monotonic()
        while True:
            self._drop_gone(replica)
            if not replica.busy:
                wake.clear()
                await wake.wait()
                deadline = time.monotonic()
                continue
            now_s = self.now_s
            plans = [(rank, rank.schedule(now_s)) for rank in replica.ranks]
            if not any(plan.decodes or plan.chunks for _, plan in plans):
                await asyncio.sleep(0.001)
                continue
            seconds = replica.step_seconds([plan for _, plan in plans]) / self.speed
            # a late wake-up is made good by the next steps, but never by more than one step
            deadline = max(deadline, time.monotonic() - seconds) + seconds
            await asyncio.sleep(max(0.0, deadline - time.monotonic()))
            now_s = self.now_s
            for rank, plan in plans:
                moved = [s for s in rank.running if s.joined_at >= 0] if plan.decodes else []
                moved += [chunk.sequence for chunk in plan.chunks if chunk.ends]
                done = rank.complete(plan, now_s)
                self._hand_out(moved, done, now_s)

    def _hand_out(self, moved: list[Sequence], done: list[Sequence], now_s: float) -> None:
        counters = self.counters
        for sequence in moved:
            stream = self._streams.get(sequence)
            if stream is None:
                continue
            stream.sent += 1
            counters.generation_tokens += 1
            if stream.sent == 1:
                counters.prompt_tokens += sequence.request.prompt_tokens
                counters.ttft_s.append(now_s - stream.arrived_s)
                counters.ttft_sum_s += now_s - stream.arrived_s
                counters.ttft_count += 1
            stream.tokens.put_nowait(stream.sent - 1)
        for sequence in done:
            stream = self._streams.pop(sequence, None)
            if stream is not None:
                counters.finished += 1
                counters.e2e_s.append(now_s - stream.arrived_s)
                counters.e2e_sum_s += now_s - stream.arrived_s
                stream.tokens.put_nowait(None)

    def _drop_gone(self, replica: Replica) -> None:
        ranks = set(map(id, replica.ranks))
        for stream in [s for s in self._streams.values() if s.gone and id(s.rank) in ranks]:
            stream.rank.cancel(stream.sequence)
            del self._streams[stream.sequence]
            self.counters.cancelled += 1
