"""Power limits: laws, and what the shipped constants say of cards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from windtunnel.planner.sustained import STATIC_SHARE, Sustained, clock_share, sustained
from windtunnel.recipes.layout import HostLoad
from windtunnel.specs.catalogue import chip


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


def test_fused_layers_have_no_host_load_of_their_own() -> None:
    assert sustained().host_factor(HostLoad.FUSED) == 1.0
    assert sustained().host_factor(HostLoad.EAGER_2021) > sustained().host_factor(HostLoad.EAGER)
    assert sustained().low < 1.0 < sustained().high
