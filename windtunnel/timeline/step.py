"""One step replayed: where it begins and ends, and every interval on the device in between.

A training step is taken in its steady state: it is replayed twice in a row, and the step is what the second
adds, so that a host which runs ahead of the card, or one that waits for it, is seen as in a long run. Steps
of inference and whole scripts are replayed once from an idle card: their time is a latency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from windtunnel.program.program import Program, StepKind, StepMark
from windtunnel.timeline.card import Card, Trace
from windtunnel.timeline.sites import SiteTable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepTimeline:
    """What the device did in one step; times are seconds from the step's beginning.

    Attributes:
        seconds: the step's length. sites: sites in the order of issue.
        position, start_s, end_s: one row per interval: index into ``sites``, begin and end.
        waits: (index, from, until) where the host waited. delays: (from, until) of the host's own work.
    """

    seconds: float
    sites: Ints
    position: Ints
    start_s: Floats
    end_s: Floats
    waits: tuple[tuple[int, float, float], ...]
    delays: tuple[tuple[float, float], ...]

    @property
    def site(self) -> Ints:
        """Site of each interval."""
        return self.sites[self.position]


def step_sites(program: Program, step: StepMark) -> Ints:
    """Sites issued in a step, in order."""
    events = program.events[step.begin : step.end]
    return events[events >= 0]


def step_seconds(table: SiteTable, sites: Ints, kind: StepKind, graph_launch_s: float) -> float:
    """Length of a step, without keeping what happened."""
    card = Card(table, graph_launch_s=graph_launch_s)
    card.advance_array(sites)
    first_s = card.finish_s
    if kind is not StepKind.TRAIN:
        return first_s
    card.advance_array(sites)
    return card.finish_s - first_s


def replay_step(table: SiteTable, sites: Ints, kind: StepKind, graph_launch_s: float) -> StepTimeline:
    """Replay a step and keep every interval."""
    trace = Trace()
    card = Card(table, graph_launch_s=graph_launch_s, trace=trace)
    card.advance_array(sites)
    begin_s = 0.0
    if kind is StepKind.TRAIN:
        begin_s = card.finish_s
        card.advance_array(sites)
    position, start, end = trace.arrays()
    # in the steady state the tail of one step may overlap the head of the next: keep what lies in between
    kept = end > begin_s
    return StepTimeline(
        seconds=card.finish_s - begin_s,
        sites=sites,
        position=position[kept] % max(1, len(sites)),
        start_s=np.maximum(start[kept], begin_s) - begin_s,
        end_s=end[kept] - begin_s,
        waits=tuple(
            (i % max(1, len(sites)), a - begin_s, b - begin_s) for i, a, b in trace.waits if b > begin_s
        ),
        delays=tuple((max(a, begin_s) - begin_s, b - begin_s) for a, b in trace.delays if b > begin_s),
    )
