"""Loads that last longer than what of them is simulated.

Requests that are all there at once fill a replica, leave in the order in which they end, and let others in. How fast
that goes on is known after two fills: by the tokens that came from the second on, over a whole number of fills. What
a run takes beyond its simulated part follows from that; its start and its end, when places stay empty, are counted
once, as they were.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from windtunnel.serving.request import Served


def most_at_once(served: Sequence[Served]) -> int:
    """Requests that ran together at most."""
    running: list[float] = []
    most = 0
    for one in sorted(served, key=lambda one: one.admitted_s):
        while running and running[0] <= one.admitted_s:
            heapq.heappop(running)
        heapq.heappush(running, one.finished_s)
        most = max(most, len(running))
    return most


def seconds_of(count: int, served: Sequence[Served]) -> float:
    """How long ``count`` requests take of which ``served`` are the first, all there at once on one replica."""
    took_s = max(one.finished_s for one in served) - min(one.request.arrival_s for one in served)
    if count <= len(served):
        return took_s
    admitted = sorted(one.admitted_s for one in served)
    fill = max(1, most_at_once(served))
    fills = (len(served) - 1) // fill  # whole ones: requests of one length leave together
    if fills < 2:
        return took_s * count / len(served)
    began_s, ended_s = admitted[fill], admitted[fills * fill]
    mean = sum(one.request.output_tokens for one in served) / len(served)
    tokens = sum(_told_within(one, began_s, ended_s) for one in served)
    return took_s + (count - len(served)) * mean * (ended_s - began_s) / tokens


def _told_within(one: Served, began_s: float, ended_s: float) -> float:
    """Tokens of an answer that came between two times, if they came evenly from its admission on."""
    overlap_s = min(one.finished_s, ended_s) - max(one.admitted_s, began_s)
    return one.request.output_tokens * max(0.0, overlap_s) / (one.finished_s - one.admitted_s)
