"""Scaling of one job over clusters of several sizes: efficiency, and what takes the time that is lost."""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.results.run_result import RunResult, ScalingPoint, StepParts

_NAMES = {
    "compute_s": "compute",
    "exposed_comm_s": "exposed communication",
    "bubble_s": "pipeline bubble",
    "host_gap_s": "launch and host gaps",
    "optimizer_s": "optimizer",
    "io_s": "input and output",
}
_NOTHING = 0.01  # growth of the time per token that is not worth a name


def scaling_points(results: Sequence[RunResult]) -> tuple[ScalingPoint, ...]:
    """One point for each result, smallest cluster first; efficiency is throughput per card against the first.

    The same figure serves weak scaling (a batch for every card) and strong scaling (one batch for all): tokens
    per second and card where tokens are known, else steps per second for an equal share of work.
    """
    ordered = sorted(results, key=lambda result: result.cards)
    first = ordered[0]
    return tuple(
        ScalingPoint(
            cards=result.cards,
            step_time_s=result.step_time_s,
            tokens_per_s_per_gpu=result.tokens_per_s_per_gpu,
            mfu=result.mfu,
            efficiency=_cost(first) / _cost(result),
            parts=result.parts,
            peak_reserved_bytes=result.memory.peak_reserved_bytes.value,
            limit=_limit(first, result),
            work_per_step=result.tokens_per_step or result.samples_per_step,
        )
        for result in ordered
    )


def _share(result: RunResult) -> float:
    """Work of one card in a step: tokens, else samples."""
    whole = result.tokens_per_step or result.samples_per_step or result.cards
    return whole / result.cards


def _cost(result: RunResult) -> float:
    return result.step_time_s.value / _share(result)


def _limit(first: RunResult, result: RunResult) -> str:
    """The part of the step that costs most more than at the smallest size, for the same work."""
    if result is first:
        return ""
    grown = {name: _grown(first, result, name) for name in _NAMES}
    worst = max(grown, key=lambda name: grown[name])
    if grown[worst] < _NOTHING * _cost(first):
        return "nothing"
    if worst != "exposed_comm_s" or not result.communication:
        return _NAMES[worst]
    before = {(row.collective, row.group): row.exposed_s / _share(first) for row in first.communication}
    row = max(
        result.communication,
        key=lambda row: row.exposed_s / _share(result) - before.get((row.collective, row.group), 0.0),
    )
    return f"{row.collective} over {row.ranks:,}"


def _grown(first: RunResult, result: RunResult, name: str) -> float:
    def per_work(parts: StepParts, share: float) -> float:
        return float(getattr(parts, name)) / share

    return per_work(result.parts, _share(result)) - per_work(first.parts, _share(first))
