"""Why a training row's step takes as long as predicted: its operations on the busiest stage, and what was assumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import ProgramTime, TrainingPredictor
from windtunnel.program.program import StepKind
from windtunnel.recipes.training import training_step
from windtunnel.units import seconds as in_words
from windtunnel.validation.explain.operations import OpTotal, StepWhy, explained, group_of, under_power
from windtunnel.validation.explain.points import Point
from windtunnel.validation.predict_training import case_of, rows_of
from windtunnel.validation.tables import Table
from windtunnel.validation.training_place import cluster_for


def explain_training(table: Table, points: Sequence[Point], *, top: int) -> StepWhy:
    """Explain the one row of ``table``, which can be predicted."""
    case, _ = case_of(table.file, rows_of(table)[0])
    assert case is not None
    cluster = cluster_for(case.chip, case.layout.cards)
    network = NetworkModel(cluster)
    predictor = TrainingPredictor(cluster.chip, network)
    found = predictor.predict(training_step(case.model, case.layout))
    totals = [total for time in found.busiest for total in _totals(time)]
    step, parts = found.step_time_s, found.parts
    spent = ", ".join(
        f"{name.removesuffix('_s').replace('_', ' ')} {in_words(value)}"
        for name in ("compute_s", "exposed_comm_s", "bubble_s", "host_gap_s", "optimizer_s")
        if (value := getattr(parts, name)) > 0
    )
    notes = (
        f"the busiest stage: {spent}",
        *under_power(cluster.chip, StepKind.TRAIN),
        *(f"assumed: {text}" for text in case.assumed),
    )
    sources = tuple((str(source), share) for source, share in step.shares)
    return StepWhy(
        case.chip, step.value, step.low, step.high, sources,
        explained(totals, cluster.chip, network, points, top=top), len(totals), notes,
    )  # fmt: skip


def _totals(time: ProgramTime) -> list[OpTotal]:
    program = time.program
    counts = np.bincount(program.sites[program.events, 0], minlength=len(program.specs))
    return [
        OpTotal(spec, work, group_of(program, spec), count, count * seconds)
        for spec, work, count, seconds in zip(
            program.specs, program.works, counts.tolist(), time.device_s, strict=True
        )
        if count and seconds
    ]
