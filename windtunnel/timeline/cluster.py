"""Replay of several recorded ranks together: each on its own card, meeting at the collectives they share.

Every rank advances on its own clock until it must wait for a collective that others have not reached; a
collective starts when the last party is ready. Parties settle in the order of (time, position in the list of
ranks, sequence), so a run repeats exactly. When nobody can move, the ranks that are missing from a collective
are found and named, as a deadlock or an early exit would leave them.

Not here: what a kernel or collective costs (``prices.py``), which rank stands for which (``ranks.py``), what
collectives take from what runs beside them (``interference.py``: the table says how long each takes with that).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.timeline.card import Card, Trace
from windtunnel.timeline.prices import Act, OpPrice
from windtunnel.timeline.ranks import Meeting, Representatives
from windtunnel.timeline.sites import Ints, SiteTable

Key = tuple[tuple[object, ...], int]
"""A meeting's label and how often that label came before."""


@dataclass(slots=True)
class _Arrival:
    rank: int
    ready_s: float
    position: int
    site: int
    price: OpPrice
    stream: int
    meeting: Meeting


class RankCard(Card):
    """A card that can be told when a collective ran."""

    def __init__(self, table: SiteTable, graph_launch_s: float) -> None:
        self.timeline = Trace()
        Card.__init__(self, table, graph_launch_s=graph_launch_s, trace=self.timeline)
        self.stalls: list[tuple[float, float]] = []

    def reach(self, price: OpPrice, stream: int) -> float:
        """Issue a collective that others must join; the answer is when this rank is ready for it."""
        self.host_s += price.host_s
        self.issued += 1
        self._open(stream)
        return max(self.host_s, self._free[stream], self._group_free.get(price.group, 0.0))

    def settle(
        self, price: OpPrice, stream: int, position: int, ready_s: float, start_s: float, end_s: float
    ) -> None:
        """The collective issued at ``position`` was ready, then ran from ``start_s`` to ``end_s``."""
        self.stalls.append((ready_s, start_s))
        self._group_free[price.group] = end_s
        self._collectives[price.argument] = end_s
        if price.blocks:
            self._free[stream] = max(self._free[stream], end_s)
        self._note(np.array([position]), np.array([start_s]), np.array([end_s]))


@dataclass(slots=True)
class _Rank:
    card: RankCard
    sites: Ints
    meetings: dict[int, Meeting]  # by site
    stops: Ints  # positions in ``sites`` where a meeting is reached or may be waited for
    next_stop: int = 0
    position: int = 0
    waiting: set[float] = field(default_factory=set)  # work numbers of meetings not settled yet
    blocked: bool = False


class ClusterReplay:
    """The ranks of one step, replayed together. ``run`` once; then read ``cards``."""

    def __init__(
        self,
        representatives: Representatives,
        tables: Sequence[SiteTable],
        sites: Sequence[Ints],
        graph_launch_s: float,
    ) -> None:
        self._representatives = representatives
        self.ranks: list[_Rank] = []
        for number, (table, order) in enumerate(zip(tables, sites, strict=True)):
            specs = representatives.programs[number].sites[:, 0]
            met = representatives.meetings(number)
            by_site = {s: m for s in np.unique(order).tolist() if (m := met[int(specs[s])]) is not None}
            stops = np.flatnonzero(_is_stop(table, by_site)[order])
            self.ranks.append(_Rank(RankCard(table, graph_launch_s), order, by_site, stops))
        self._arrived: dict[Key, list[_Arrival]] = defaultdict(list)
        self._count: list[dict[tuple[object, ...], int]] = [defaultdict(int) for _ in self.ranks]
        self._ready: list[tuple[float, int, int, Key]] = []
        self._sequence = 0

    def run(self) -> float:
        """Replay all ranks to their ends; the answer is when the last one is done.

        Raises:
            WindtunnelError: E211, a collective that some rank never joins; E212, one that ranks disagree about.
        """
        for number in range(len(self.ranks)):
            self._advance(number)
        while self._ready:
            start_s, _, _, key = heapq.heappop(self._ready)
            for number in self._settle(start_s, self._arrived.pop(key)):
                self._advance(number)
        if self._arrived or any(rank.blocked for rank in self.ranks):
            raise self._somebody_is_missing()
        return max(rank.card.finish_s for rank in self.ranks)

    def _advance(self, number: int) -> None:
        """Move one rank on until it waits for a meeting or is done."""
        rank = self.ranks[number]
        rank.blocked = False
        table, card = rank.card.table, rank.card
        while rank.position < len(rank.sites):
            stop = int(rank.stops[rank.next_stop]) if rank.next_stop < len(rank.stops) else len(rank.sites)
            if stop > rank.position:
                card.advance_array(rank.sites[rank.position : stop])
                rank.position = stop
                continue
            site = int(rank.sites[stop])
            price = table.prices[site]
            meeting = rank.meetings.get(site)
            if meeting is None:
                if rank.waiting and (price.argument in rank.waiting or price.act is not Act.WAIT_COLLECTIVE):
                    rank.blocked = True
                    return
                card.advance_array(rank.sites[stop : stop + 1])
            else:
                if price.blocks and rank.waiting:
                    rank.blocked = True
                    return
                self._arrive(number, meeting, site)
            rank.position += 1
            rank.next_stop += 1
            if meeting is not None and price.blocks:
                rank.blocked = True
                return

    def _arrive(self, number: int, meeting: Meeting, site: int) -> None:
        rank = self.ranks[number]
        price, stream = rank.card.table.prices[site], rank.card.table.streams[site]
        key = (meeting.label, self._count[number][meeting.label])
        self._count[number][meeting.label] += 1
        position = rank.card.issued
        arrival = _Arrival(number, rank.card.reach(price, stream), position, site, price, stream, meeting)
        rank.waiting.add(price.argument)
        present = self._arrived[key]
        if present and not present[0].meeting.agrees_with(meeting):
            raise _disagreement(self._representatives, present[0], arrival)
        present.append(arrival)
        if {a.rank for a in present} == set(meeting.parties):
            self._sequence += 1
            start_s = max(a.ready_s for a in present)
            heapq.heappush(self._ready, (start_s, min(meeting.parties), self._sequence, key))

    def _settle(self, start_s: float, arrivals: list[_Arrival]) -> list[int]:
        # every party has it priced; whose links are busiest decides
        end_s = start_s + max(self.ranks[a.rank].card.table.devices[a.site] for a in arrivals)
        freed = []
        for arrival in sorted(arrivals, key=lambda a: a.rank):
            rank = self.ranks[arrival.rank]
            rank.card.settle(arrival.price, arrival.stream, arrival.position, arrival.ready_s, start_s, end_s)
            rank.waiting.discard(arrival.price.argument)
            if rank.blocked:
                freed.append(arrival.rank)
        return freed

    def _somebody_is_missing(self) -> WindtunnelError:
        label, arrivals = min(self._arrived.items(), key=lambda item: min(a.ready_s for a in item[1]))
        meeting = arrivals[0].meeting
        here = {a.rank for a in arrivals}
        names = self._representatives.ranks
        missing = [number for number in meeting.parties if number not in here]
        where = "; ".join(f"rank {names[n]} {self._standing(n)}" for n in missing)
        return WindtunnelError(
            "E211",
            f"{meeting.kind} never completes: {_ranks(missing, names)} never joins it",
            hint="all ranks of a group must issue the same collectives in the same order",
            values={
                "waiting": ", ".join(f"rank {names[a.rank]} at {self._line(a)}" for a in arrivals[:8]),
                "missing": where,
                "bytes": meeting.nbytes,
                "occurrence": label[1] + 1,
            },
        )

    def _line(self, arrival: _Arrival) -> str:
        return _line_of(self._representatives, arrival)

    def _standing(self, number: int) -> str:
        for arrivals in self._arrived.values():
            for arrival in arrivals:
                if arrival.rank == number:
                    return f"waits in {arrival.meeting.kind} at {self._line(arrival)}"
        return "has ended"


def _is_stop(table: SiteTable, meetings: dict[int, Meeting]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Sites at which a rank meets others, or at which it could wait for them."""
    acts, _ = table.integers
    waits = (Act.WAIT_COLLECTIVE, Act.SYNCHRONIZE, Act.ITEM, Act.STREAM_SYNCHRONIZE, Act.EVENT_SYNCHRONIZE)
    stop = np.isin(acts, waits) if meetings else np.zeros(len(acts), dtype=bool)
    stop[list(meetings)] = True
    return stop


def _ranks(numbers: Sequence[int], names: Sequence[int]) -> str:
    return ", ".join(f"rank {names[number]}" for number in numbers)


def _line_of(who: Representatives, arrival: _Arrival) -> str:
    program = who.programs[arrival.rank]
    return str(program.lines[program.site(arrival.site).line]) if program.lines else "unknown line"


def _disagreement(who: Representatives, first: _Arrival, second: _Arrival) -> WindtunnelError:
    def said(arrival: _Arrival) -> str:
        return f"{arrival.meeting.kind} of {arrival.meeting.nbytes} bytes at {_line_of(who, arrival)}"

    return WindtunnelError(
        "E212",
        "ranks disagree about a collective: kind or size differ",
        hint="check shapes, dtypes and the order of collectives on the ranks named",
        values={
            f"rank {who.ranks[first.rank]}": said(first),
            f"rank {who.ranks[second.rank]}": said(second),
        },
    )
