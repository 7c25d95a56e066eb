"""The order in which waiting requests are looked at, by SGLang's ``--schedule-policy`` names (0.5.23).

* ``fcfs``: as they came. ``lof``: longest output first.
* ``lpm``: longest cached prefix first; ``hrrn``: most prompt tokens computed for others meanwhile, for each token
  that is not cached. Both look at queues of up to ``MATCH_MAX`` only, longer ones go as they came. Among requests
  with next to nothing in the cache, those that share a prefix with an earlier one in the queue wait, so that it is
  computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from windtunnel.serving.request import Request

MATCH_MAX = 128
IN_BATCH_CHECK = IN_BATCH_WAIT = 32
"""Cached tokens up to which the queue itself is searched, and tokens shared there from which one waits."""


class SchedulePolicy(StrEnum):
    """Names of orders."""

    FCFS = "fcfs"
    LPM = "lpm"
    LOF = "lof"
    HRRN = "hrrn"


def order_of(
    policy: SchedulePolicy,
    waiting: Sequence[Request],
    cached: Callable[[int], int],
    waited: Callable[[int], int],
) -> list[int]:
    """Places of ``waiting`` in the order in which they are looked at.

    Args:
        cached: tokens of the prompt at a place that are in the cache. waited: prompt tokens computed since it came.
    """
    places = list(range(len(waiting)))
    if policy is SchedulePolicy.LOF:
        return sorted(places, key=lambda place: -waiting[place].output_tokens)
    if policy is SchedulePolicy.FCFS or len(waiting) > MATCH_MAX:
        return places
    known = [cached(place) for place in places]
    later = _sharing(waiting, known)
    if policy is SchedulePolicy.LPM:
        return sorted(places, key=lambda place: float("inf") if place in later else -known[place])

    def ratio(place: int) -> tuple[float, int]:
        if place in later:
            return float("inf"), place
        left = waiting[place].prompt_tokens - known[place]
        return (-waited(place) / left if left > 0 else -float("inf")), place

    return sorted(places, key=ratio)


def _sharing(waiting: Sequence[Request], known: Sequence[int]) -> set[int]:
    """Places whose prefix an earlier place brings into the cache."""
    first: list[Request] = []
    later = set()
    for place, request in enumerate(waiting):
        if known[place] > IN_BATCH_CHECK:
            continue
        if any(_common(request, other) >= IN_BATCH_WAIT for other in first):
            later.add(place)
        else:
            first.append(request)
    return later


def _common(one: Request, other: Request) -> int:
    """Tokens that two prompts begin alike with, as far as their keys tell."""
    same = 0
    for a, b in zip(one.keys, other.keys, strict=False):
        if a != b:
            break
        same += 1
    return min(same * one.key_tokens, one.prompt_tokens, other.prompt_tokens)
