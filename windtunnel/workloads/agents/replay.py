"""Teams that each do one task after another, in virtual time, on the replicas of a deployment.

A call is sent when all it waits for is answered and its gap has passed; so slow answers delay what follows, as in
life. Teams start spread over the length of one unhurried task. Their first tasks warm the caches; the second of every
team is measured, while all go on with further ones until the last of these is done.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from windtunnel.serving.deployment import Deployment
from windtunnel.serving.engine import Replica
from windtunnel.serving.garbage import uncollected
from windtunnel.serving.progress import Say
from windtunnel.serving.request import Request, Served, with_spans
from windtunnel.serving.router import Policy, Router
from windtunnel.serving.simulate import Together
from windtunnel.workloads.agents.graph import Call, CallGraph

INFINITY = float("inf")
MEASURED = 1
"""Which task of every team is measured: the second."""
_TASK_SPACE = 1 << 24
TOOL_SIGMA = 0.6
"""Spread of drawn tool times, of their logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What takes time besides the model.

    Attributes:
        think_s: mean pause between two tasks of a team (exponential). tool_s: mean time of tools (log-normal);
            below zero: as recorded.
    """

    think_s: float = 0.0
    tool_s: float = -1.0
    seed: int = 0


@dataclass(slots=True)
class TaskRun:
    """One task of one team. ``waiting``: for each call, how many answers it still waits for."""

    team: int
    number: int
    began_s: float
    waiting: list[int]
    ended_s: float = -1.0
    left: int = 0
    served: list[Served] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From its start to its last answer."""
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """``tasks``: the measured ones; ``all_tasks``: finished ones of any number; times in seconds."""

    tasks: tuple[TaskRun, ...]
    all_tasks: int
    duration_s: float
    replicas: tuple[Replica, ...]

    @property
    def calls(self) -> list[Served]:
        """All measured calls."""
        return [one for task in self.tasks for one in task.served]


def replay(
    deployment: Deployment, graph: CallGraph, teams: int, pace: Pace, *, policy: Policy = Policy.LEAST_LOAD,
    spread_s: float = 0.0, say: Say | None = None, enough: Callable[[TaskRun], bool] | None = None,
) -> Outcome:  # fmt: skip
    """Run ``teams`` teams; ``spread_s``: over how long they start; ``enough``: whether a measured task was the last."""
    run = _Replay(deployment, graph, teams, pace, policy)
    if say is not None:
        run.tell(say)
    run.enough = enough
    with uncollected():
        return run.run(spread_s)


class _Replay:
    def __init__(
        self, deployment: Deployment, graph: CallGraph, teams: int, pace: Pace, policy: Policy
    ) -> None:
        self.graph, self.teams, self.pace = graph, teams, pace
        self.replicas = deployment.start()
        self.router = Router(self.replicas, policy)
        self.follow: list[list[int]] = [[] for _ in graph.calls]
        for index, call in enumerate(graph.calls):
            for before in call.after:
                self.follow[before].append(index)
        self.events: list[tuple[float, int, TaskRun | None, int, int]] = []
        self.flying: dict[int, tuple[TaskRun, int]] = {}
        self.sequence = 0
        self.finished = 0
        self.measured: list[TaskRun] = []
        self.draw = random.Random(pace.seed)
        self.together = Together(self.replicas)
        self.enough: Callable[[TaskRun], bool] | None = None
        self.stopped = False
        self.stretches = self._stretches()

    def tell(self, say: Say) -> None:
        """Say how far it is as it runs."""

        def look(now_s: float) -> None:
            say(f"{now_s:,.0f} s, {len(self.measured):,} of {self.teams:,} measured tasks done")

        for replica in self.replicas:
            replica.watch = look

    def run(self, spread_s: float) -> Outcome:
        for team in range(self.teams):
            self._push(spread_s * team / self.teams, None, team, 0)
        now = 0.0
        while len(self.measured) < self.teams and not self.stopped:
            until = self.events[0][0] if self.events else INFINITY
            if self.together.advance(until):
                for served in self.together.answers():
                    self._answered(*self.flying.pop(served.request.number), served)
                continue
            if not self.events:
                break
            now, _, task, which, number = heapq.heappop(self.events)
            if task is None:
                self._begin(which, number, now)
            else:
                self._send(task, which, now)
        return Outcome(tuple(self.measured), self.finished, now, tuple(self.replicas))

    def _push(self, at: float, task: TaskRun | None, which: int, number: int) -> None:
        self.sequence += 1
        heapq.heappush(self.events, (at, self.sequence, task, which, number))

    def _begin(self, team: int, number: int, now: float) -> None:
        calls = self.graph.calls
        task = TaskRun(team, number, now, [len(call.after) for call in calls], left=len(calls))
        for place, call in enumerate(calls):
            if not call.after:
                self._push(now + call.gap_s, task, place, number)

    def _send(self, task: TaskRun, place: int, now: float) -> None:
        call = self.graph.calls[place]
        self.sequence += 1
        keys = self._keys(call, task.team, task.number)
        request = Request(
            self.sequence, now, call.prompt_tokens, call.output_tokens, keys, self.graph.block_tokens,
            spans=tuple((keys[first], count) for first, count in self.stretches[place]),
        )  # fmt: skip
        replica = self.router.choose(request)
        if not replica.busy:
            replica.advance(now)
        self.flying[request.number] = (task, place)
        replica.add(request)

    def _keys(self, call: Call, team: int, number: int) -> tuple[int, ...]:
        """Blocks that every task has keep their number; others are this task's own."""
        own = (1 + team + number * self.teams) * _TASK_SPACE
        return (*call.blocks[: call.common], *map(own.__add__, call.blocks[call.common :]))

    def _stretches(self) -> list[list[tuple[int, int]]]:
        """For each call, where stretches of its keys begin that always come together, and how many keys they have.

        They are those of any two tasks, since all are alike: prompts are then known by a few stretches instead of a
        key every few tokens.
        """
        requests = [
            Request(0, 0.0, call.prompt_tokens, 1, self._keys(call, 0, number), self.graph.block_tokens)
            for number in (0, 1)
            for call in self.graph.calls
        ]
        found = []
        for request in with_spans(requests)[: len(self.graph.calls)]:
            places, place = [], 0
            for _, count in request.spans:
                places.append((place, count))
                place += count
            found.append(places)
        return found

    def _answered(self, task: TaskRun, place: int, served: Served) -> None:
        task.served.append(served)
        task.left -= 1
        for following in self.follow[place]:
            task.waiting[following] -= 1
            if not task.waiting[following]:
                call = self.graph.calls[following]
                self._push(served.finished_s + self._gap(call), task, following, task.number)
        if task.left:
            return
        task.ended_s = served.finished_s
        self.finished += 1
        if task.number == MEASURED:
            self.measured.append(task)
            self.stopped = self.enough is not None and self.enough(task)
        pause = self.draw.expovariate(1 / self.pace.think_s) if self.pace.think_s else 0.0
        self._push(served.finished_s + pause, None, task.team, task.number + 1)

    def _gap(self, call: Call) -> float:
        if not call.tool or self.pace.tool_s < 0:
            return call.gap_s
        mean = self.pace.tool_s
        return mean * self.draw.lognormvariate(-(TOOL_SIGMA**2) / 2, TOOL_SIGMA) if mean else 0.0


def longest(graphs: Sequence[CallGraph]) -> int:
    """Tokens of the longest call, prompt and answer."""
    return max(call.prompt_tokens + call.output_tokens for graph in graphs for call in graph.calls)
