"""The step cut into disjoint parts that sum to it: what the card does at each moment, the weightiest first.

compute (kernels outside the optimizer) > optimizer > communication alone > copies alone, or the host's own
work such as data loading > nothing: the card waits for the host to issue.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from windtunnel.program.program import Phase, Program
from windtunnel.program.work import Family
from windtunnel.results.run_result import StepParts
from windtunnel.timeline.step import StepTimeline

Floats = npt.NDArray[np.float64]


def covered_s(start_s: Floats, end_s: Floats, until_s: float) -> float:
    """Length of the union of intervals inside 0..``until_s``."""
    start, end = np.clip(start_s, 0.0, until_s), np.clip(end_s, 0.0, until_s)
    if not len(start):
        return 0.0
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    reached = np.concatenate(([0.0], np.maximum.accumulate(end)[:-1]))
    return float(np.maximum(0.0, end - np.maximum(start, reached)).sum())


def step_parts(
    timeline: StepTimeline, families: npt.NDArray[np.int64], phases: npt.NDArray[np.int64]
) -> StepParts:
    """Parts of a step. ``families`` (0 compute, 1 communication, 2 copy) and ``phases`` are by site."""
    site = timeline.site
    family, phase = families[site], phases[site]
    compute = (family == COMPUTE) & (phase != Phase.OPTIMIZER)
    layers = (
        compute,
        compute | ((family == COMPUTE) & (phase == Phase.OPTIMIZER)),
        family != COPY,
        np.ones(len(site), dtype=bool),
    )
    until_s = timeline.seconds
    lengths = [covered_s(timeline.start_s[mask], timeline.end_s[mask], until_s) for mask in layers]
    own = np.array(timeline.delays).reshape(-1, 2)
    busy = covered_s(
        np.concatenate((timeline.start_s, own[:, 0])), np.concatenate((timeline.end_s, own[:, 1])), until_s
    )
    compute_s, with_optimizer_s, with_communication_s, with_copies_s = lengths
    return StepParts(
        compute_s=compute_s,
        optimizer_s=max(0.0, with_optimizer_s - compute_s),
        exposed_comm_s=max(0.0, with_communication_s - with_optimizer_s),
        io_s=max(0.0, with_copies_s - with_communication_s) + max(0.0, busy - with_copies_s),
        host_gap_s=max(0.0, until_s - busy),
    )


COMPUTE, COMMUNICATION, COPY = 0, 1, 2
_KINDS = {Family.COLLECTIVE: COMMUNICATION, Family.HOST_COPY: COPY, Family.HOST: COPY}


def kinds_of(program: Program) -> npt.NDArray[np.int64]:
    """The kind of device work of every site."""
    return np.array([kind_of(work.family) for work in program.works], np.int64)[program.sites[:, 0]]


def kind_of(family: Family) -> int:
    """Which of the three kinds of device work a family is; a value read back is a copy."""
    return _KINDS.get(family, COMPUTE)


ROUNDING = 1e-9
"""Sums of the same intervals in another order differ by less, as a share of the step."""


def beyond_rounding(rest_s: float, seconds: float) -> float:
    """What is left of a step of ``seconds``; nothing where it is only the rounding of sums."""
    return rest_s if rest_s > ROUNDING * seconds else 0.0
