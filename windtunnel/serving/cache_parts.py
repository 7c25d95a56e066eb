"""What of prompts' caches can leave a replica while it computes, for servers that make the outputs elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from windtunnel.serving.step_plan import Chunk, StepPlan


@dataclass(frozen=True, slots=True)
class CachePart:
    """The first ``tokens`` of a prompt's cache, ready to leave ``rank`` at ``at_s``; in whole pages unless ``last``."""

    at_s: float
    number: int
    tokens: int
    rank: int = 0
    last: bool = False


def ready(
    plans: Sequence[StepPlan], after: Sequence[StepPlan], now_s: float, ends_s: float, page: int
) -> Iterator[CachePart]:
    """What can leave by a step of ``plans``, one a rank: what the cache has when it begins, chunks when it ends.

    An engine that runs ahead hands over what its next step (``after``) has before what this one computed.
    """
    yield from _had(plans, now_s, page)
    yield from _had(after, ends_s, page)
    for last in (True, False):
        for place, plan in enumerate(plans):
            for chunk in plan.chunks:
                if chunk.ends is last:
                    yield from _part(ends_s, chunk, chunk.context + chunk.new, place, page)


def _had(plans: Sequence[StepPlan], at_s: float, page: int) -> Iterator[CachePart]:
    for place, plan in enumerate(plans):
        if not plan.loaded_s:  # else from slower tiers, while the step runs
            for chunk in plan.chunks:
                yield from _part(at_s, chunk._replace(ends=False), chunk.context, place, page)


def _part(at_s: float, chunk: Chunk, tokens: int, place: int, page: int) -> Iterator[CachePart]:
    if not chunk.ends:
        tokens = tokens // page * page
    if tokens:
        yield CachePart(at_s, chunk.sequence.request.number, tokens, place, chunk.ends)
