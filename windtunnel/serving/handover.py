"""SGLang's prompts and outputs on replicas of their own, which wait for each other: both sides in one virtual time.

A request goes to both at once. The decode side sets pages aside and says so, then the prompt is computed; its cache
leaves part by part, and arrives; the client's first token comes when the request joins the decode side's batch. So
whichever replica is behind goes first, at one instant the decode side. What one tells the other is known at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from windtunnel.serving.cache_parts import CachePart
from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Request, Served
from windtunnel.serving.router import Router
from windtunnel.serving.sessions import INFINITY, Sessions
from windtunnel.serving.sglang_outputs import OutputQueues
from windtunnel.serving.sglang_prompts import PromptServer


class _Event(Enum):
    """What a replica is told: pages set aside for a request, a cache that has come."""

    PAGES = auto()
    CACHE = auto()


@dataclass(slots=True)
class _Room:
    """One request, and who serves it. ``sent``: tokens of its cache that have left."""

    request: Request
    prompts: Replica
    prompt_rank: PromptServer
    outputs: Replica
    output_rank: OutputQueues
    sent: int = 0
    prompt: Served | None = None


class Handover:
    """``whole_s``: seconds of the last so many tokens of a cache on the wire; ``part_s``: of a part before them.

    Each attention rank of a prefill replica has a wire of its own, one part after another.
    """

    def __init__(
        self, prefill: Router, decode: Router, whole_s: Callable[[int], float], part_s: Callable[[int], float]
    ) -> None:
        self._prefill, self._decode = prefill, decode
        self._whole_s, self._part_s = whole_s, part_s
        self._page = prefill.replicas[0].ranks[0].options.block_size
        self._rooms: dict[int, _Room] = {}
        self._events: list[tuple[float, int, _Event, int]] = []
        self._told = 0
        self._free_s: dict[tuple[int, int], float] = {}
        self._awake: set[Replica] = set()
        self._sides = {replica: (1, place) for place, replica in enumerate(prefill.replicas)}
        self._sides |= {replica: (0, place) for place, replica in enumerate(decode.replicas)}
        self._answers: list[Served] = []
        for replica in prefill.replicas:
            replica.parts = []

    def serve(self, sessions: Sessions) -> list[Served]:
        """Requests come as their sessions go on."""
        while True:
            replica = min(self._awake, key=self._turn, default=None)
            now_s = INFINITY if replica is None else replica.now_s
            told_s = self._events[0][0] if self._events else INFINITY
            if sessions.next_s <= min(told_s, now_s) and sessions.next_s < INFINITY:
                self._open(sessions.take())
            elif self._events and told_s <= now_s:
                at_s, _, event, number = heapq.heappop(self._events)
                self._deliver(at_s, event, number)
            elif replica is None:
                break
            else:
                for one in self._step(replica, min(told_s, sessions.next_s)):
                    self._answers.append(one)
                    sessions.answered(one.request.number, one.finished_s)
        return sorted(self._answers, key=lambda one: one.request.number)

    def _turn(self, replica: Replica) -> tuple[float, tuple[int, int]]:
        return replica.now_s, self._sides[replica]

    def _tell(self, at_s: float, event: _Event, number: int) -> None:
        self._told += 1
        heapq.heappush(self._events, (at_s, self._told, event, number))

    def _deliver(self, at_s: float, event: _Event, number: int) -> None:
        room = self._rooms[number]
        if event is _Event.PAGES:
            room.prompt_rank.grant(number)
        else:
            room.prompt_rank.release(number)
            room.output_rank.arrive(number)
            self._wake(room.outputs, at_s)
        self._wake(room.prompts, at_s)

    def _open(self, request: Request) -> None:
        prompts, outputs = self._prefill.choose(request), self._decode.choose(request)
        prompt_rank, output_rank = prompts.add(replace(request, output_tokens=1)), outputs.add(request)
        assert isinstance(prompt_rank, PromptServer)
        assert isinstance(output_rank, OutputQueues)
        self._rooms[request.number] = _Room(request, prompts, prompt_rank, outputs, output_rank)
        self._wake(outputs, request.arrival_s)

    def _wake(self, replica: Replica, at_s: float) -> None:
        if replica not in self._awake:
            replica.now_s = max(replica.now_s, at_s)
            self._awake.add(replica)

    def _step(self, replica: Replica, until_s: float) -> list[Served]:
        """One step of the replica that is behind, or steady ones while nobody can tell it anything; its answers."""
        side, decided_s = self._sides[replica][0], replica.now_s
        others = [one.now_s for one in self._awake if self._sides[one][0] != side]
        seen = len(replica.served)
        if not replica.turn(min([until_s, *others])):
            self._awake.remove(replica)
        done = replica.served[seen:]
        if replica.parts is not None:
            for one in done:
                self._rooms[one.request.number].prompt = one
            self._ship(replica, replica.parts)
            return []
        for rank in replica.ranks:
            assert isinstance(rank, OutputQueues)
            for number in rank.set_aside:
                self._tell(decided_s, _Event.PAGES, number)
            done += [replica.told(one)._replace(finished_s=decided_s) for one in rank.answered]
            rank.set_aside.clear()
            rank.answered.clear()
        return [self._joined(one) for one in sorted(done, key=lambda one: one.finished_s)]

    def _joined(self, output: Served) -> Served:
        room = self._rooms.pop(output.request.number)
        prompt = room.prompt
        assert prompt is not None
        return output._replace(
            request=room.request, admitted_s=prompt.admitted_s, cached_tokens=prompt.cached_tokens
        )

    def _ship(self, replica: Replica, parts: list[CachePart]) -> None:
        for part in parts:
            room, wire = self._rooms[part.number], (replica.number, part.rank)
            tokens = -(-part.tokens // self._page) * self._page - room.sent
            if tokens <= 0:
                continue
            seconds = self._whole_s(tokens) if part.last else self._part_s(tokens)
            self._free_s[wire] = max(self._free_s.get(wire, 0.0), part.at_s) + seconds
            room.sent += tokens
            if part.last:
                self._tell(self._free_s[wire], _Event.CACHE, part.number)
        parts.clear()
