"""Power limits: laws, and what the shipped constants say of cards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.timeline.timeline_programs import make_program, mm, no_memory
from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.program.program import Phase, StepKind
from windtunnel.recipes.layout import HostLoad
from windtunnel.specs.catalogue import chip
from windtunnel.specs.targets import cluster_of
from windtunnel.timeline.predict import predict
from windtunnel.timeline.sustained import STATIC_SHARE, Sustained, clock_share, sustained


@given(st.floats(0.0, 1.0), st.floats(100, 1500))
def test_a_limit_never_speeds_up_and_binds_harder_where_it_is_lower(slope: float, watts: float) -> None:
    constants = Sustained(slope, (("Hopper", watts),), (), 0.9, 1.1)
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
