"""The programs of all stages replayed together, as recorded ranks are: they meet, and take the time of the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.layout import Layout, Recompute
from windtunnel.recipes.training import Unit, training_program, training_step
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.timeline.cluster_predict import replay_cluster
from windtunnel.timeline.schedule import Schedule, order
from windtunnel.timeline.sustained import sustained
from windtunnel.timeline.symmetry import asked_besides, stands_for


@pytest.mark.parametrize("chunks", [1, 2])
def test_stages_meet_and_take_the_time_of_the_plan(chunks: int) -> None:
    layout = Layout(
        cards=16,
        tensor=2,
        pipeline=4,
        chunks=chunks,
        global_batch=16,
        sequence=4096,
        recompute=Recompute.FULL,
        schedule="interleaved" if chunks > 1 else "1f1b",
    )
    recipe = training_step(shipped_model("llama3-8b"), layout)
    plan = order(Schedule(layout.schedule), layout.pipeline, layout.micro_batches, chunks)
    programs = [
        training_program(recipe, stage, [Unit(Part(str(c.kind)), c.micro_batch, c.virtual) for c in row])
        for stage, row in enumerate(plan.stages)
    ]
    cluster = cluster_of("h100-sxm", layout.cards)
    assert not asked_besides(programs)  # messages lead from the first stage to all others
    who = stands_for([program.origin.rank for program in programs], layout.cards)
    together = replay_cluster(programs, cluster.chip, NetworkModel(cluster), stands_for=who)
    # a recording knows nothing of what hosts do between passes, nor of ranks that come late: the plan adds both
    alike = replace(sustained(), arrivals_s=(), between_s=())
    predictor = TrainingPredictor(cluster.chip, NetworkModel(cluster), long_run=alike)
    planned = predictor.predict(recipe)
    assert together.seconds == pytest.approx(planned.step_time_s.value, rel=0.06)
