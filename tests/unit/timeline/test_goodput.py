"""Effective training time: parts that sum, limits that are known, seeds that repeat."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.errors import WindtunnelError
from windtunnel.timeline.goodput import Reliability, best_interval_s, simulate, straggler_factor

DAY_S = 86400.0
LLAMA3 = Reliability(card_hours_per_failure=50_700, restart_s=600, checkpoint_s=30)


@given(
    st.floats(1e3, 1e6), st.integers(1, 20_000), st.floats(10, 3600), st.floats(0.1, 300), st.integers(0, 99)
)
def test_parts_sum_to_the_wall_clock(
    hours: float, cards: int, restart: float, save: float, seed: int
) -> None:
    reliability = Reliability(
        card_hours_per_failure=hours, restart_s=restart, checkpoint_s=save, straggler_sigma=0.02
    )
    g = simulate(3 * DAY_S, cards, reliability, seed=seed)
    parts = g.useful_s + g.straggler_s + g.checkpoint_s + g.lost_s + g.restart_s
    assert parts == pytest.approx(g.wall_s)
    assert 0 <= g.effective_fraction <= 1
    assert g == simulate(3 * DAY_S, cards, reliability, seed=seed)


def test_nothing_breaks_nothing_is_lost() -> None:
    never = Reliability(
        card_hours_per_failure=math.inf, restart_s=600, checkpoint_s=10, checkpoint_interval_s=990
    )
    g = simulate(10_000.0, 1024, never)
    assert g.failures == 0
    assert g.effective_fraction == pytest.approx(0.99)


def test_failures_come_as_often_as_stated() -> None:
    """Llama 3: 419 interruptions in 54 days on 16,384 cards."""
    counts = [simulate(54 * DAY_S, 16_384, replace(LLAMA3, restart_s=0), seed=s).failures for s in range(20)]
    assert sum(counts) / len(counts) == pytest.approx(419, rel=0.03)


def test_more_cards_are_never_more_effective_on_average() -> None:
    means = [
        sum(simulate(30 * DAY_S, cards, LLAMA3, seed=s).effective_fraction for s in range(8)) / 8
        for cards in (64, 1024, 10_240)
    ]
    assert means == sorted(means, reverse=True)


def test_youngs_interval_is_near_the_best() -> None:
    mean_s = 50_700 * 3600 / 10_240
    best = best_interval_s(30, mean_s)
    effective = {
        factor: sum(
            simulate(
                200 * DAY_S, 10_240, replace(LLAMA3, checkpoint_interval_s=best * factor), seed=s
            ).useful_s
            for s in range(4)
        )
        for factor in (0.2, 1.0, 5.0)
    }
    assert max(effective, key=lambda factor: effective[factor]) == 1.0


def test_stragglers_grow_with_the_logarithm_of_the_ranks() -> None:
    factors = [straggler_factor(n, 0.02) for n in (1, 8, 1024, 10_240)]
    assert factors == sorted(factors)
    assert 1.0 <= factors[0] < 1.02
    assert factors[-1] == pytest.approx(
        1 + 0.02 * 3.9, abs=0.01
    )  # mean maximum of 10,240 normals: 3.86 sigma
    assert straggler_factor(1024, 0.0) == 1.0


def test_impossible_figures_are_refused() -> None:
    with pytest.raises(WindtunnelError) as caught:
        simulate(DAY_S, 0, LLAMA3)
    assert caught.value.code == "E213"
