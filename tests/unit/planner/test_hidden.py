"""Expert exchange beside another micro-batch: what shows, and the published DeepSeek-V3 trace."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.recipes.architectures import DEEPSEEK_V3
from windtunnel.network.model import NetworkModel
from windtunnel.planner.hidden import expert_exchange, hidden
from windtunnel.planner.training import TrainingPredictor
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.layout import Layout, Precision
from windtunnel.recipes.training import training_step
from windtunnel.results.run_result import StepParts
from windtunnel.specs.targets import cluster_of

TRACE = Path(__file__).parents[4] / "shared/measurements/validation/kernel_deepseek_h800_train_summary.csv"
LAYOUT = Layout(
    cards=64 * 16,
    pipeline=16,
    expert=64,
    global_batch=64 * 64,
    sequence=4096,
    precision=Precision.FP8_BLOCK,
    schedule="dualpipe",
)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0, 0.5))
def test_hiding_never_costs_more_than_waiting_and_never_less_than_compute(
    compute: float, exchange: float, held: float
) -> None:
    shown = StepParts(compute_s=compute, exposed_comm_s=exchange)
    seen = hidden(shown, exchange, held)
    assert max(compute, exchange) - 1e-12 <= seen.total_s <= shown.total_s / (1 - held) + 1e-12
    assert hidden(shown, exchange, 0.0).total_s == pytest.approx(max(compute, exchange))


@pytest.mark.skipif(not TRACE.exists(), reason="the published trace is not beside this checkout")
def test_dispatch_and_combine_take_what_deepseek_published() -> None:
    """Four MoE layers on H800, 64 ranks: combine 6.0 to 6.5 ms, dispatch 3.4 to 4.3 ms each; not fitted.

    With DeepSeek's own limit of four nodes a token the model is 20 to 25 % below; whether the trace's simulated
    balanced routing keeps that limit is not stated, without it the model is within 8 % for combine.
    """
    with TRACE.open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if "internode::combine<" in row["kernel"]]
    medians = [float(row["median_seconds"]) for row in rows]
    cluster = cluster_of("h800", LAYOUT.cards)
    network = NetworkModel(cluster)
    model = replace(DEEPSEEK_V3, layers=(DEEPSEEK_V3.layers[-1],) * 64)
    recipe = training_step(model, LAYOUT)
    program = recipe.program(5, Part.FORWARD, 1, splits_backward=True)
    times = {
        spec.name: network.recorded_time(spec, program.groups[int(str(spec.attribute("group")))]).seconds
        for spec in program.specs
        if spec.name in ("c10d.dispatch", "c10d.combine")
    }
    assert min(medians) * 0.75 < times["c10d.combine"] < max(medians) * 1.1
    assert 0.0024 < times["c10d.dispatch"] < 0.0045


def test_dualpipe_hides_what_1f1b_exposes() -> None:
    cluster = cluster_of("h800", LAYOUT.cards)
    predictor = TrainingPredictor(cluster.chip, NetworkModel(cluster))
    model = replace(DEEPSEEK_V3, layers=(DEEPSEEK_V3.layers[-1],) * 64)
    dual = predictor.predict(training_step(model, LAYOUT))
    plain = predictor.predict(training_step(model, replace(LAYOUT, schedule="1f1b")))
    assert dual.step_time_s.value < 0.85 * plain.step_time_s.value
    assert dual.parts.exposed_comm_s < 0.2 * plain.parts.exposed_comm_s


def test_programs_without_experts_exchange_nothing() -> None:
    cluster = cluster_of("h800", 8)
    dense = replace(DEEPSEEK_V3, layers=DEEPSEEK_V3.layers[:1])
    recipe = training_step(dense, Layout(cards=8, global_batch=8, sequence=4096))
    assert expert_exchange(recipe.program(0, Part.FORWARD, 0), NetworkModel(cluster)) == (0.0, 0.0)
