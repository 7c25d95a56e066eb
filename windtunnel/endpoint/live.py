"""A deployment that runs in real time, or ``speed`` times as fast: every token comes when its step ends.

Each replica is one task: decide a step, wait as long as the step takes, hand out its tokens. Requests and
cancellations take effect between steps. The clock is kept by deadlines, so that small delays do not add up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from windtunnel.endpoint.counters import Counters
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler import Scheduler
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.step_plan import StepPlan

RETRY_MAX_S = 60
CATCH_UP_S = 0.5
"""How much lateness of this process is made good; after a longer stall the clock of the cards stood still."""


@dataclass(slots=True, eq=False)
class Stream:
    """One request under way. ``sent`` tokens have come; who waits for more sleeps on ``waiter``."""

    sequence: Sequence
    rank: Scheduler
    arrived_s: float
    sent: int = 0
    last_s: float = 0.0
    done: bool = False
    gone: bool = False
    waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Tell who waits that there is more."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Overloaded(Exception):
    """The queue is full, or the server ends; ``retry_after_s`` says when to come again."""

    def __init__(self, why: str, retry_after_s: int) -> None:
        super().__init__(f"{why}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class LiveEngine:
    """Replicas of ``deployment`` in real time. ``start`` and ``stop`` from a running event loop.

    ``keeps``: everything that is asked (``asked``) and answered is remembered, for a report at the end.
    """

    def __init__(
        self, deployment: Deployment, speed: float = 1.0, max_queue: int = 4096, keeps: bool = False
    ) -> None:
        self.deployment = deployment
        self.speed = speed
        self.max_queue = max_queue
        self.counters = Counters()
        self.keeps = keeps
        self.asked: list[Request] = []
        self.replicas = deployment.start()
        for replica in self.replicas:
            for rank in replica.ranks:
                rank.lists_decoded = True
        self._streams: dict[Sequence, Stream] = {}
        self._left: dict[Scheduler, int] = {}  # how many were waiting still when the last step was decided
        self._leaving: list[Stream] = []
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
    def places(self) -> int:
        """Sequences that run at once, at most."""
        return sum(rank.options.max_num_seqs for replica in self.replicas for rank in replica.ranks)

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return sum(len(rank.running) for replica in self.replicas for rank in replica.ranks)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a place: not those that came during this step and go into the next."""
        return sum(self._waiting(rank) for replica in self.replicas for rank in replica.ranks)

    def _waiting(self, rank: Scheduler) -> int:
        queued = len(rank.waiting)
        left = min(queued, self._left.get(rank, 0))
        if left:
            return queued
        return max(0, queued - (rank.options.max_num_seqs - len(rank.running)))

    def check_room(self) -> None:
        """Raise Overloaded when the queue is full or the engine is closing."""
        if self._closing or self.waiting >= self.max_queue:
            self.counters.rejected += 1
            why = (
                "this server is shutting down"
                if self._closing
                else f"the queue is full: {self.places} requests run at once (--max-num-seqs), "
                f"{self.max_queue} wait (--max-queue)"
            )
            raise Overloaded(why, self._retry_after_s())

    def submit(
        self, prompt_tokens: int, output_tokens: int, keys: tuple[int, ...], pictures: Seq[int] = ()
    ) -> Stream:
        """Queue a request; ``pictures``: patches of each, whose tokens are among the prompt's.

        Raises Overloaded when the queue is full or the engine is closing.
        """
        self.check_room()
        number = self._number
        self._number += 1
        size = self.deployment.key_tokens
        request = Request(
            number,
            self.now_s,
            prompt_tokens,
            output_tokens,
            keys,
            size if keys else 0,
            images=tuple(pictures),
        )
        index = min(range(len(self.replicas)), key=lambda i: self.replicas[i].load)
        rank = min(self.replicas[index].ranks, key=lambda rank: len(rank.running) + 4 * len(rank.waiting))
        stream = Stream(rank.add(request), rank, request.arrival_s)
        if self.keeps:
            self.asked.append(request)
        self._streams[stream.sequence] = stream
        self._wake[index].set()
        return stream

    async def progress(self, streams: Seq[Stream]) -> AsyncIterator[tuple[int, int]]:
        """Which of them has more tokens, and how many there are; leaving early cancels them all."""
        told = [0] * len(streams)
        loop = asyncio.get_running_loop()
        try:
            while True:
                news = [place for place, stream in enumerate(streams) if told[place] < stream.sent]
                for place in news:
                    told[place] = streams[place].sent
                    yield place, told[place]
                if news:
                    continue  # more may have come while this was sent
                under_way = [stream for stream in streams if not stream.done]
                if not under_way:
                    return
                waiter = loop.create_future()
                for stream in under_way:
                    stream.waiter = waiter
                await waiter
        finally:
            for stream in streams:
                self.drop(stream)

    def drop(self, stream: Stream) -> None:
        """Nobody waits for this any more: it leaves at the end of the step; no matter if it is done."""
        if not stream.done and not stream.gone:
            stream.gone = True
            self._leaving.append(stream)

    def _retry_after_s(self) -> int:
        """When half of the queue will have found places, each held for a mean answer at today's steps."""
        asked = [stream.sequence.request for stream in self._streams.values()]
        if not asked:
            return 1
        ranks = sum(len(replica.ranks) for replica in self.replicas)
        places = max(1, len(asked) - self.waiting)
        batch = -(-places // ranks)
        prompt = sum(request.prompt_tokens for request in asked) // len(asked)
        answer = sum(request.output_tokens for request in asked) / len(asked)
        seconds = answer * self.deployment.step.decode_s(batch, batch * prompt) / self.speed
        return max(1, min(RETRY_MAX_S, round(seconds * self.waiting / places / 2)))

    async def _run(self, replica: Replica, wake: asyncio.Event) -> None:
        deadline = time.monotonic()
        while True:
            self._drop_gone()
            if not replica.busy:
                wake.clear()
                await wake.wait()
                deadline = time.monotonic()
                continue
            replica.now_s = self.now_s
            plans = replica.decide(replica.now_s)
            self._left |= {rank: len(rank.waiting) for rank in replica.ranks}
            if not plans:
                await asyncio.sleep(0.001)
                continue
            taken_s = replica.step_seconds(plans)
            seconds = taken_s / self.speed
            # cards would not have waited for a busy host: what it lost is made good by the next steps
            deadline = max(deadline, time.monotonic() - CATCH_UP_S) + seconds
            await asyncio.sleep(max(0.0, deadline - time.monotonic()))
            replica.now_s = self.now_s
            for rank, plan in zip(replica.ranks, plans, strict=True):
                done = self._end(rank, plan)
                if self.keeps:
                    replica.served += [replica.told(sequence) for sequence in done]
            if self.keeps:
                replica.count(plans, taken_s)

    def _end(self, rank: Scheduler, plan: StepPlan) -> list[Sequence]:
        """A step of one rank is over: hand out its tokens; the answer is who is done."""
        now_s = self.now_s
        moved = [*plan.decoded, *(chunk.sequence for chunk in plan.chunks if chunk.ends)]
        moved = [sequence for sequence in moved if sequence not in rank.dropped]
        self.counters.iteration(plan.decodes + sum(chunk.new for chunk in plan.chunks))
        done = rank.complete(plan, now_s)
        for sequence, more in (rank.gained or dict.fromkeys(moved, 1)).items():
            stream = self._streams.get(sequence)
            if stream is not None:
                stream.sent += more
                waited_s = now_s - (stream.last_s or stream.arrived_s)
                self.counters.token(stream.sent, waited_s, sequence, more)
                stream.last_s = now_s
                stream.wake()
        for sequence in done:
            stream = self._streams.pop(sequence, None)
            if stream is not None:
                self.counters.finish(sequence, stream.arrived_s, now_s)
                stream.done = True
                stream.wake()
        return done

    def _drop_gone(self) -> None:
        leaving, self._leaving = self._leaving, []
        for stream in leaving:
            if self._streams.pop(stream.sequence, None) is not None:
                stream.rank.cancel(stream.sequence)
                self.counters.cancelled += 1
