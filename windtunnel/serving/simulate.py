"""Traffic through replicas in virtual time: open loop, closed loop, in sessions, or prefill and decode apart.

In an open loop replicas do not talk to each other, so each is advanced only when a request is routed to it or a
router looks at its load. Prefill replicas do not hear from decode replicas either: they run first, and what they
finish arrives at the decode side after its cache has crossed the network (``wires``).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Request, Served
from windtunnel.serving.router import Router
from windtunnel.serving.sessions import INFINITY, Sessions
from windtunnel.serving.wires import Wires


def open_loop(requests: Iterable[Request], router: Router, shipped: bool = False) -> list[Served]:
    """Requests arrive when they say."""
    replicas = router.replicas
    for request in requests:
        now_s = request.arrival_s
        for replica in replicas:
            if replica.now_s < now_s:  # else in the middle of a step
                replica.advance(now_s)
        router.choose(request).add(request, shipped)
    for replica in router.replicas:
        replica.advance(INFINITY)
    return sorted(
        (served for replica in router.replicas for served in replica.served),
        key=lambda served: served.request.number,
    )


def closed_loop(requests: Sequence[Request], replicas: Sequence[Replica], concurrency: int) -> list[Served]:
    """``concurrency`` clients over all replicas, each sending its next request when its last was answered."""
    shares = [requests[index :: len(replicas)] for index in range(len(replicas))]
    for index, (replica, share) in enumerate(zip(replicas, shares, strict=True)):
        places = concurrency // len(replicas) + (index < concurrency % len(replicas))
        _closed(replica, share, max(1, places))
    served = [one for replica in replicas for one in replica.served]
    return sorted(served, key=lambda one: one.request.number)


def _closed(replica: Replica, requests: Sequence[Request], places: int) -> None:
    queue = iter(requests)
    for request in islice(queue, places):
        replica.add(replace(request, arrival_s=0.0))
    answered = 0
    while replica.busy:
        replica.advance_to_next_answer()
        fresh = len(replica.served) - answered
        answered = len(replica.served)
        if not fresh:
            return
        for _ in range(fresh):
            following = next(queue, None)
            if following is not None:
                replica.add(replace(following, arrival_s=replica.now_s))


def disaggregated(
    requests: Iterable[Request], prefill: Router, decode: Router, transfer_s: Callable[[int], float],
    part_s: Callable[[int], float] | None = None,
) -> list[Served]:  # fmt: skip
    """Prompts on one set of replicas, outputs on another; ``transfer_s``: seconds to ship so many tokens.

    A prefill replica ships one cache after another, with ``part_s`` part by part. The first token is the prefill
    side's.
    """
    wires = Wires(prefill.replicas, transfer_s, part_s)
    by_number = {request.number: request for request in requests}
    prompts = open_loop([replace(request, output_tokens=1) for request in by_number.values()], prefill)
    for done in sorted(prompts, key=lambda one: (one.finished_s, one.request.number)):
        request = by_number[done.request.number]
        if request.output_tokens > 1:
            wires.send(done, request)
    shipped = [replace(by_number[number], arrival_s=at) for at, number in _drained(wires.arriving)]
    finished = {one.request.number: one for one in open_loop(shipped, decode, shipped=True)}
    return [_joined(by_number[one.request.number], one, finished.get(one.request.number)) for one in prompts]


def closed_disaggregated(
    requests: Sequence[Request], prefill: Router, decode: Router, transfer_s: Callable[[int], float],
    concurrency: int, part_s: Callable[[int], float] | None = None,
) -> list[Served]:  # fmt: skip
    """``concurrency`` clients, prompts and outputs on sets of replicas of their own."""
    return sessions_apart(Sessions(requests, concurrency), prefill, decode, transfer_s, part_s)


class Together:
    """Replicas that hear of each other's answers: the one that is behind always goes first.

    What is sent while another is in the middle of a step waits for that step's end, as it would.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = replicas
        self._told = [0] * len(replicas)

    def advance(self, until_s: float) -> bool:
        """Advance the replica that is furthest back, not past the others or ``until_s``; False where all are there."""
        behind = [replica for replica in self.replicas if replica.busy and replica.now_s < until_s]
        if not behind:
            for replica in self.replicas:
                if not replica.busy and until_s < INFINITY:
                    replica.advance(until_s)
            return False
        replica = min(behind, key=lambda one: one.now_s)
        limit = min([until_s, *(one.now_s for one in behind if one is not replica)])
        if not replica.advance_to_answer(limit):
            replica.now_s = until_s  # nothing of what it holds can run before something else happens
        return True

    def answers(self) -> list[Served]:
        """Those that came since the last call."""
        found: list[Served] = []
        for index, replica in enumerate(self.replicas):
            found += replica.served[self._told[index] :]
            self._told[index] = len(replica.served)
        return found


def session_loop(sessions: Sessions, router: Router) -> list[Served]:
    """Calls are sent as their sessions go on."""
    together = Together(router.replicas)
    served: list[Served] = []
    while True:
        if together.advance(sessions.next_s):
            for one in together.answers():
                served.append(one)
                sessions.answered(one.request.number, one.finished_s)
        elif sessions.next_s == INFINITY:
            break
        else:
            request = sessions.take()
            _arrive(router.choose(request), request, request.arrival_s)
    return sorted(served, key=lambda one: one.request.number)


def sessions_apart(
    sessions: Sessions, prefill: Router, decode: Router, transfer_s: Callable[[int], float],
    part_s: Callable[[int], float] | None = None,
) -> list[Served]:  # fmt: skip
    """Prompts and outputs on sets of replicas of their own; answers of one side are arrivals at the other."""
    together = Together([*prefill.replicas, *decode.replicas])
    wires = Wires(prefill.replicas, transfer_s, part_s)
    arriving = wires.arriving
    asked: dict[int, Request] = {}
    prompts: dict[int, Served] = {}
    served: list[Served] = []
    while True:
        shipped_s = arriving[0][0] if arriving else INFINITY
        if together.advance(min(shipped_s, sessions.next_s)):
            for one in together.answers():
                number = one.request.number
                if number not in prompts and asked[number].output_tokens > 1:
                    prompts[number] = one
                    wires.send(one, asked[number])
                    continue
                served.append(_joined(asked[number], prompts.pop(number, one), one))
                sessions.answered(number, one.finished_s)
        elif shipped_s < INFINITY and shipped_s <= sessions.next_s:
            at_s, number = heapq.heappop(arriving)
            request = replace(asked[number], arrival_s=at_s)
            _arrive(decode.choose(request), request, at_s, shipped=True)
        elif sessions.next_s < INFINITY:
            request = sessions.take()
            asked[request.number] = request
            _arrive(prefill.choose(request), replace(request, output_tokens=1), request.arrival_s)
        else:
            break
    return sorted(served, key=lambda one: one.request.number)


def _arrive(replica: Replica, request: Request, at_s: float, shipped: bool = False) -> None:
    if not replica.busy:
        replica.now_s = max(replica.now_s, at_s)
    replica.add(request, shipped)


def _drained(heap: list[tuple[float, int]]) -> Iterable[tuple[float, int]]:
    while heap:
        yield heapq.heappop(heap)


def _joined(request: Request, prompt: Served, output: Served | None) -> Served:
    if output is None:
        return prompt._replace(request=request)
    return Served(
        request,
        prompt.admitted_s,
        prompt.first_token_s,
        output.finished_s,
        prompt.cached_tokens,
        prompt.preemptions + output.preemptions,
        output.replica,
    )
