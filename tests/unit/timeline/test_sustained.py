"""Power limits: laws, and what the shipped constants say of cards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.timeline.ranks_program import collective
from tests.unit.timeline.timeline_programs import make_program, mm, no_memory
from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.program.program import Phase, ProcessGroup, StepKind
from windtunnel.recipes.layout import HostLoad, Layout
from windtunnel.recipes.training import training_step
from windtunnel.specs.catalogue import chip
from windtunnel.specs.targets import cluster_of
from windtunnel.timeline.cluster_predict import replay_cluster
from windtunnel.timeline.predict import predict
from windtunnel.timeline.sustained import STATIC_SHARE, Sustained, clock_share, sustained
from windtunnel.validation.training_rows import gpt


@given(st.floats(0.0, 1.0), st.floats(100, 1500))
def test_a_limit_never_speeds_up_and_binds_harder_where_it_is_lower(slope: float, watts: float) -> None:
    constants = Sustained(slope, (("Hopper", watts),), (), (), (), 0.9, 1.1)
    full, limited = (constants.slowdown(chip(name)) for name in ("h100-sxm", "h100-96g-500w"))
    assert 1.0 <= full <= limited


@given(st.floats(0.25, 1.5), st.floats(0.0, 1.0))
def test_the_clock_draws_the_power_that_is_allowed(allowed: float, slope: float) -> None:
    x = clock_share(allowed, slope)
    assert 0.1 <= x <= 1.0
    if allowed >= 1:
        assert x == 1.0
    elif x > 0.11:
        power = STATIC_SHARE + (1 - STATIC_SHARE) * x * (1 - slope * (1 - x)) ** 2
        assert abs(power - allowed) < 1e-6
    # a voltage that falls saves power, so the clock may stay higher
    assert clock_share(allowed, slope) >= clock_share(allowed, 0.0) - 1e-9


def test_cards_far_below_their_power_are_left_alone() -> None:
    """H20 has Hopper's units at a seventh of the peak: nothing to throttle. S5000 has no public points."""
    constants = sustained()
    assert constants.slowdown(chip("h20")) == 1.0
    assert constants.slowdown(chip("mtt-s5000")) == 1.0
    assert 1.0 < constants.slowdown(chip("h100-sxm")) < 1.25


def test_compiled_layers_have_no_host_load_of_their_own_and_modules_around_fused_ones_do() -> None:
    assert sustained().host_factor(HostLoad.COMPILED) == 1.0
    assert 1.0 < sustained().host_factor(HostLoad.FUSED) < 20.0
    assert sustained().host_factor(HostLoad.EAGER_2021) > sustained().host_factor(HostLoad.EAGER)
    assert sustained().low < 1.0 < sustained().high


def test_recorded_and_recipe_built_training_steps_run_under_the_same_limit() -> None:
    """The same product, recorded in a training step and in a forward pass, and asked of the planner."""
    program = make_program([(mm(8192, 8192, 8192), 0, Phase.FORWARD)])
    forward = replace(program, steps=[replace(program.steps[0], kind=StepKind.FORWARD)])
    limited, full = chip("h100-96g-500w"), chip("h100-sxm")
    slower = sustained().slowdown(limited)
    assert slower > sustained().slowdown(full) > 1.0
    times = {
        (card.name, kind): predict(p, card, memory=no_memory()).parts.compute_s
        for card in (limited, full)
        for kind, p in (("train", program), ("forward", forward))
    }
    assert times[limited.name, "train"] == pytest.approx(slower * times[limited.name, "forward"])
    predictor = TrainingPredictor(limited, NetworkModel(cluster_of(limited.name, 1)))
    assert predictor.program_time(program).parts.compute_s == pytest.approx(times[limited.name, "train"])


def test_a_card_whose_power_nobody_measured_says_so() -> None:
    program = make_program([(mm(1024, 1024, 1024), 0, Phase.FORWARD)])
    said = predict(program, chip("mtt-s5000"), memory=no_memory()).assumptions
    assert any("no power limit" in text for text in said)
    assert not any(
        "power" in text for text in predict(program, chip("h100-sxm"), memory=no_memory()).assumptions
    )


@given(st.floats(1e-6, 1e-3), st.integers(1, 64))
def test_the_last_of_more_ranks_comes_later_and_one_rank_waits_for_nobody(mean_s: float, ranks: int) -> None:
    constants = Sustained(0.2, (), (), (("fused", mean_s),), (), 0.9, 1.1)
    assert constants.last_arrival_s("fused", 1) == 0.0
    assert constants.last_arrival_s("fused", 2) == pytest.approx(mean_s / 2)
    assert constants.last_arrival_s("fused", ranks) < constants.last_arrival_s("fused", ranks + 1)
    # frameworks without points are taken as today's; programs of no framework wait for nobody
    assert constants.last_arrival_s("compiled", ranks) == constants.last_arrival_s("fused", ranks)
    assert constants.last_arrival_s("", ranks) == 0.0


def test_a_step_waits_for_late_ranks_at_collectives_that_hold_their_stream() -> None:
    """Without overlap four exchanges of a layer and two of its backward pass wait; with one card nothing does."""
    predictor = TrainingPredictor(chip("h100-sxm"), NetworkModel(cluster_of("h100-sxm", 8)))
    late = replace(sustained(), arrivals_s=(("fused", 1e-3),))
    prompt = replace(sustained(), arrivals_s=())

    def step_s(constants: Sustained, tensor: int) -> float:
        model = gpt(layers=4, hidden=4096, heads=32, vocabulary=51200)
        layout = Layout(cards=8, global_batch=8, sequence=2048, tensor=tensor)
        return predictor.with_constants(constants).predict(training_step(model, layout)).step_time_s.value

    assert step_s(late, 1) == pytest.approx(step_s(prompt, 1), abs=1e-2)
    waits_s = constants_wait(late, 8)
    micro_batches = 8
    per_layer = (step_s(late, 8) - step_s(prompt, 8)) / micro_batches / 4 / waits_s
    assert 4.0 <= per_layer <= 8.0


def constants_wait(constants: Sustained, ranks: int) -> float:
    return constants.last_arrival_s(HostLoad.FUSED, ranks)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_recorded_step_waits_for_late_ranks_as_a_planned_one_does(asynchronous: bool) -> None:
    """The same exchange between the same products, recorded in a training step and in a forward pass, and planned."""
    exchange = collective("allreduce_", async_op=asynchronous)
    issued = [(mm(4096, 4096, 4096), 0, Phase.FORWARD), (exchange, 0, Phase.FORWARD)]
    program = make_program(issued, groups=[ProcessGroup(tuple(range(8)))])
    program.origin = replace(program.origin, world_size=8)
    forward = replace(program, steps=[replace(program.steps[0], kind=StepKind.FORWARD)])
    cluster = cluster_of("a100-80g", 8)
    network = NetworkModel(cluster)
    recorded = [replay_cluster([p], cluster.chip, network).ranks[0].timeline for p in (program, forward)]
    took = [float((line.end_s - line.start_s)[-1]) for line in recorded]
    wait_s = 0.0 if asynchronous else sustained().last_arrival_s(HostLoad.EAGER, 8)
    assert took[0] - took[1] == pytest.approx(wait_s, abs=1e-9)
    planned = TrainingPredictor(cluster.chip, network).program_time(program, load=HostLoad.EAGER)
    assert planned.device_s[-1] == pytest.approx(took[0])


def test_the_hosts_work_between_passes_is_paid_once_for_each_pass() -> None:
    predictor = TrainingPredictor(chip("a100-80g"), NetworkModel(cluster_of("a100-80g", 1)))
    model = gpt(layers=2, hidden=2048, heads=16, vocabulary=51200)
    recipe = training_step(model, Layout(cards=1, global_batch=6, sequence=1024))
    none, some = (replace(sustained(), between_s=(("fused", value),)) for value in (0.0, 2e-3))
    steps = [predictor.with_constants(constants).predict(recipe) for constants in (none, some)]
    more = steps[1].step_time_s.value - steps[0].step_time_s.value
    assert more == pytest.approx(6 * 2 * 2e-3)
    assert steps[1].parts.host_gap_s - steps[0].parts.host_gap_s == pytest.approx(more)
