"""A rank's step at a glance: cut into equal buckets, each named after what fills most of it.

Compute by phase comes first; communication counts where no kernel hides it. Buckets that stand still for the larger
part are left out: the gaps of a pipeline stay visible at any length of step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from windtunnel.program.program import Phase
from windtunnel.results.run_result import LanePiece
from windtunnel.timeline.cover import Cover
from windtunnel.timeline.parts import COMMUNICATION, COMPUTE
from windtunnel.timeline.step import StepTimeline

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BUCKETS = 800
_PHASES = (
    ("forward", (Phase.FORWARD, Phase.OTHER)),
    ("recomputation", (Phase.RECOMPUTE,)),
    ("backward", (Phase.BACKWARD,)),
    ("optimizer", (Phase.OPTIMIZER,)),
)


def lane(timeline: StepTimeline, kinds: Ints, phases: Ints) -> tuple[LanePiece, ...]:
    """The step of one rank. ``kinds`` (as ``parts.kind_of`` numbers them) and ``phases`` are by site."""
    if timeline.seconds <= 0 or not len(timeline.start_s):
        return ()
    edges = np.linspace(0.0, timeline.seconds, BUCKETS + 1)
    site = timeline.site
    compute = kinds[site] == COMPUTE
    rows = [_filled(timeline, compute & np.isin(phases[site], wanted), edges) for _, wanted in _PHASES]
    either = _filled(timeline, compute | (kinds[site] == COMMUNICATION), edges)
    rows.append(either - _filled(timeline, compute, edges))
    names = [*(name for name, _ in _PHASES), "communication"]
    table = np.array(rows)
    width_s = timeline.seconds / BUCKETS
    chosen = np.where(table.sum(axis=0) > width_s / 2, table.argmax(axis=0), -1)
    return tuple(_runs(chosen, names, width_s))


def _filled(timeline: StepTimeline, mask: npt.NDArray[np.bool_], edges: Floats) -> Floats:
    """Seconds of each bucket that the chosen intervals cover."""
    return np.diff(Cover(timeline.start_s[mask], timeline.end_s[mask])(edges))


def _runs(chosen: Ints, names: Sequence[str], width_s: float) -> list[LanePiece]:
    bounds = [0, *(np.flatnonzero(np.diff(chosen)) + 1).tolist(), len(chosen)]
    return [
        LanePiece(begin * width_s, (end - begin) * width_s, names[int(chosen[begin])])
        for begin, end in pairwise(bounds)
        if chosen[begin] >= 0
    ]
