"""Sessions as clients live them: a call is sent when those it waits for are answered and its gap has passed.

So slow answers delay what follows, as in life: nobody asks again before the answer has come. Calls that wait for
nothing come at their own times. With ``clients`` only so many sessions are under way at once (a call without a
session is one by itself), the next begins when one has ended, and times count from there.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from windtunnel.serving.request import Follows, Request

INFINITY = float("inf")


class Sessions:
    """What is sent next, and when. ``clients``: sessions at once; 0: all begin when they were recorded to."""

    def __init__(self, requests: Sequence[Request], clients: int = 0) -> None:
        self.requests = {request.number: request for request in requests}
        self._followers: dict[int, list[Request]] = defaultdict(list)
        self._waiting: dict[int, int] = {}
        self._answered_s: dict[int, float] = {}
        self._ready: list[tuple[float, int]] = []
        self._began_s: dict[str | int, tuple[float, float]] = {}
        self._left: dict[str | int, int] = {}
        together: dict[str | int, list[Request]] = defaultdict(list)
        for request in requests:
            together[_session(request)].append(request)
            if request.follows:
                self._waiting[request.number] = len(request.follows.calls)
                for number in request.follows.calls:
                    self._followers[number].append(request)
        self._queue = deque(together.values())
        while self._queue and (not clients or len(self._left) < clients):
            self._begin(0.0 if clients else None)

    @property
    def next_s(self) -> float:
        """When the next call is sent, by what has been answered."""
        return self._ready[0][0] if self._ready else INFINITY

    def take(self) -> Request:
        """The next call, arriving when it is sent."""
        at_s, number = heapq.heappop(self._ready)
        return replace(self.requests[number], arrival_s=at_s)

    def answered(self, number: int, at_s: float) -> None:
        """A call has its answer; who waited for it may go on."""
        for request in self._followers[number]:
            last_s = max(at_s, self._answered_s.get(request.number, 0.0))
            self._answered_s[request.number] = last_s
            self._waiting[request.number] -= 1
            if not self._waiting[request.number]:
                self._push(request, last_s)
        session = _session(self.requests[number])
        self._left[session] -= 1
        if not self._left[session] and self._queue:
            self._begin(at_s)

    def _begin(self, at_s: float | None) -> None:
        """The next session; ``at_s``: not at its recorded time but then."""
        requests = self._queue.popleft()
        session = _session(requests[0])
        first_s = min(request.arrival_s for request in requests)
        self._left[session] = len(requests)
        if at_s is not None:
            self._began_s[session] = at_s, first_s
        for request in requests:
            if request.follows is None:
                self._push(request, 0.0)

    def _push(self, request: Request, answered_s: float) -> None:
        follows = request.follows
        if follows is None or follows.gap_s is None:
            at_s = max(answered_s, self._recorded_s(request))
        else:
            at_s = answered_s + follows.gap_s
        heapq.heappush(self._ready, (at_s, request.number))

    def _recorded_s(self, request: Request) -> float:
        """Its recorded time, counted from where its session has begun."""
        at_s, first_s = self._began_s.get(_session(request), (0.0, 0.0))
        return at_s + (request.arrival_s - first_s)


def _session(request: Request) -> str | int:
    return request.session or request.number


def in_sessions(requests: Iterable[Request]) -> bool:
    """Whether any of them waits for another's answer."""
    return any(request.follows for request in requests)


def without(requests: Sequence[Request], refused: Collection[int]) -> list[Request]:
    """The others; who waited for a refused call waits for what that one waited for: a refusal is answered at once."""
    kept = [request for request in requests if request.number not in refused]
    if not refused or not in_sessions(kept):
        return kept
    of = {request.number: request for request in requests}
    return [_relinked(request, of, refused) if request.follows else request for request in kept]


def _relinked(request: Request, of: dict[int, Request], refused: Collection[int]) -> Request:
    follows = request.follows
    while follows and (gone := next((call for call in follows.calls if call in refused), None)) is not None:
        before = of[gone].follows
        calls = [call for call in follows.calls if call != gone]
        calls += [call for call in (before.calls if before else ()) if call not in calls]
        gap_s = follows.gap_s
        if gap_s is not None and len(follows.calls) == 1 and before:
            gap_s = None if before.gap_s is None else gap_s + before.gap_s
        follows = Follows(tuple(calls), gap_s) if calls else None
    return replace(request, follows=follows)
