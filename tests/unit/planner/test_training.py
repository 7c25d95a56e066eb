"""Training steps end to end: laws of layouts, and the speed that planning needs."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.recipes.architectures import LLAMA_70B, SMALL
from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPrediction, TrainingPredictor
from windtunnel.recipes.architecture import Architecture
from windtunnel.recipes.layout import Layout, Recompute
from windtunnel.recipes.training import training_step
from windtunnel.specs.targets import cluster_of

CARDS = 64
PREDICTORS = {
    name: TrainingPredictor(cluster_of(name, CARDS).chip, NetworkModel(cluster_of(name, CARDS)))
    for name in ("h100-sxm", "mtt-s5000")
}
BASE = Layout(cards=CARDS, global_batch=128, sequence=4096)


def predict(model: Architecture, layout: Layout, chip: str = "h100-sxm") -> TrainingPrediction:
    return PREDICTORS[chip].predict(training_step(model, layout))


layouts = st.builds(
    lambda tensor, pipeline, micro, recompute: replace(
        BASE, tensor=tensor, pipeline=pipeline, micro_batch=micro, recompute=recompute
    ),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.sampled_from(list(Recompute)),
)


@settings(max_examples=20, deadline=None)
@given(layouts, st.sampled_from(sorted(PREDICTORS)))
def test_parts_sum_to_the_step_and_the_interval_holds_it(layout: Layout, chip: str) -> None:
    prediction = predict(SMALL, layout, chip)
    step = prediction.step_time_s
    assert prediction.parts.total_s == pytest.approx(step.value)
    assert step.low <= step.value <= step.high
    assert prediction.tokens_per_s_per_gpu == pytest.approx(layout.step_tokens / step.value / CARDS)


@settings(max_examples=10, deadline=None)
@given(layouts)
def test_a_larger_batch_takes_longer_and_is_never_less_efficient(layout: Layout) -> None:
    small = predict(SMALL, layout)
    large = predict(SMALL, replace(layout, global_batch=2 * layout.global_batch))
    assert large.step_time_s.value > small.step_time_s.value
    assert large.tokens_per_s_per_gpu >= small.tokens_per_s_per_gpu * (1 - 1e-9)


def test_recomputing_costs_time() -> None:
    none, full = (predict(SMALL, replace(BASE, recompute=r)) for r in (Recompute.NONE, Recompute.FULL))
    assert full.step_time_s.value > none.step_time_s.value * 1.15


def test_two_card_groups_are_slow_on_the_mesh() -> None:
    """One of seven pairs: TP 2 exposes more communication for its work than TP 8 on the S5000."""
    two, eight = (predict(SMALL, replace(BASE, tensor=t), "mtt-s5000") for t in (2, 8))
    assert (
        two.parts.exposed_comm_s / two.parts.compute_s
        > 0.4 * eight.parts.exposed_comm_s / eight.parts.compute_s
    )


@pytest.mark.parametrize(("cards", "limit_s"), [(1024, 2.0), (10_240, 10.0)])
def test_thousands_of_cards_in_seconds(cards: int, limit_s: float) -> None:
    cluster = cluster_of("mtt-s5000", cards)
    layout = Layout(
        cards=cards,
        tensor=8,
        pipeline=8,
        chunks=5,
        schedule="interleaved",
        global_batch=cards // 64 * 32,
        sequence=4096,
    )
    begin = time.process_time()
    prediction = TrainingPredictor(cluster.chip, NetworkModel(cluster)).predict(
        training_step(LLAMA_70B, layout)
    )
    assert time.process_time() - begin < limit_s
    assert 0 < prediction.parts.bubble_s < 0.5 * prediction.step_time_s.value
