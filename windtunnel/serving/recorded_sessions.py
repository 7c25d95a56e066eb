"""What calls of a recorded session waited for: read off their times, or as the trace says.

Where a trace has the time that an answer took, a call waits for those that had come when it was sent and that
nothing later waited for; so do aiperf's replays of the same sessions. Agents of a session that are told apart wait
for their own last call and for agents that ended since; not for those that go on beside them. Traces that name
sessions or predecessors but no times of answers keep their own times, at least until the answer has come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from windtunnel.serving.request import Follows, Request


@dataclass(frozen=True, slots=True)
class Timed:
    """A call of ``request.session`` whose answer took ``took_s``; times are kept to ``resolution_s``."""

    took_s: float
    resolution_s: float
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A call with a name, and the names of those it waits for, ``gap_s`` as of ``Follows``."""

    name: str
    after: tuple[str, ...]
    gap_s: float | None


Link = Timed | Named | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request of a trace, not numbered yet, and what is known of its session."""

    request: Request
    link: Link = None


def linked(calls: Sequence[Recorded]) -> list[Request]:
    """The requests in the order of arrival, numbered, from 0 s, each with what it follows."""
    calls = sorted(calls, key=lambda one: one.request.arrival_s)
    start_s = calls[0].request.arrival_s if calls else 0.0
    follows = {**_timed(calls), **_named(calls)}
    return [
        replace(
            one.request, number=number, arrival_s=one.request.arrival_s - start_s, follows=follows.get(number)
        )
        for number, one in enumerate(calls)
    ]


def _named(calls: Sequence[Recorded]) -> dict[int, Follows]:
    numbers: dict[str, int] = {}
    found = {}
    for number, one in enumerate(calls):
        if isinstance(one.link, Named):
            after = tuple(numbers[name] for name in one.link.after if name in numbers)
            if after:
                found[number] = Follows(after, one.link.gap_s)
            numbers[one.link.name] = number
    return found


@dataclass(frozen=True, slots=True)
class _Call:
    number: int
    agent: str
    began_s: float
    ended_s: float


def _timed(calls: Sequence[Recorded]) -> dict[int, Follows]:
    sessions: dict[str, list[_Call]] = defaultdict(list)
    slack: dict[str, float] = {}
    for number, one in enumerate(calls):
        if isinstance(one.link, Timed):
            began_s, name = one.request.arrival_s, one.request.session
            sessions[name].append(_Call(number, one.link.agent, began_s, began_s + one.link.took_s))
            slack[name] = one.link.resolution_s
    found = {}
    for name, session in sessions.items():
        agents = len({call.agent for call in session}) > 1
        for call, after in _agents(session, slack[name]) if agents else _frontiers(session, slack[name]):
            if after:
                gap_s = max(0.0, call.began_s - max(before.ended_s for before in after))
                found[call.number] = Follows(tuple(sorted(before.number for before in after)), gap_s)
    return found


def _frontiers(session: Sequence[_Call], slack_s: float) -> Iterable[tuple[_Call, list[_Call]]]:
    """Every call with those that had ended when it began and that none of the ended ones followed."""
    under_way: list[_Call] = []
    ended: list[_Call] = []
    latest_s = float("-inf")
    for call in session:
        still: list[_Call] = []
        came: list[_Call] = []
        for one in under_way:
            before = one.began_s < call.began_s and one.ended_s <= call.began_s + slack_s
            (came if before else still).append(one)
        under_way = [*still, call]
        latest_s = max([latest_s, *(one.began_s for one in came)])
        ended = [
            one for one in (*ended, *came) if one.began_s == latest_s or one.ended_s > latest_s + slack_s
        ]
        yield call, ended


def _agents(session: Sequence[_Call], slack_s: float) -> Iterable[tuple[_Call, list[_Call]]]:
    """Every call with its agent's last one and the last ones of agents that ended since."""
    of: dict[str, list[_Call]] = defaultdict(list)
    for call in session:
        of[call.agent].append(call)
    lasts = [calls[-1] for calls in of.values()]
    places: dict[str, int] = defaultdict(int)
    for call in session:
        own = of[call.agent][places[call.agent] - 1] if places[call.agent] else None
        places[call.agent] += 1
        since_s = own.began_s if own else float("-inf")
        after = [
            one
            for one in lasts
            if one.agent != call.agent and one.began_s < call.began_s
            and since_s <= one.began_s and one.ended_s <= call.began_s + slack_s
        ]  # fmt: skip
        if own is None and not after:  # started by whoever has its answer
            after = [one for one in session if one.began_s < call.began_s and one.ended_s <= call.began_s][
                -1:
            ]
        yield call, ([own] if own else []) + after
