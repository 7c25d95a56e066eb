"""Days of a job: what published runs say, and what happens when a figure moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import sample_results
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Source
from windtunnel.results.run_result import LongRun, RunResult
from windtunnel.specs.catalogue import chip
from windtunnel.timeline.long_run import CARD_HOURS_PER_FAILURE, LongRunQuestion, long_run

H100 = chip("h100-sxm")


def ask(result: RunResult | None = None, cards: int = 1024, **asked: float) -> LongRun:
    job = replace(result or sample_results.training(), cards=cards)
    return long_run(job, H100, LongRunQuestion(**{"days": 30.0, **asked}))  # type: ignore[arg-type]


def test_parts_sum_and_the_range_holds_the_mean() -> None:
    run = ask(straggler_sigma=0.01)
    assert run.useful + run.stragglers + run.checkpoints + run.lost + run.restarts == pytest.approx(1.0)
    assert run.effective.low <= run.useful <= run.effective.high
    assert run == ask(straggler_sigma=0.01)
    assert run != ask(straggler_sigma=0.01, seed=1)


def test_llama_3_is_interrupted_as_often_as_it_was_and_stays_above_ninety_percent() -> None:
    """arXiv 2407.21783: 419 interruptions in 54 days on 16,384 cards, more than 90 % effective."""
    run = ask(cards=16_384, days=54.0)
    # while a job is down it does not fail again, so slightly fewer than at a constant rate
    assert run.failures.value == pytest.approx(419, rel=0.12)
    assert 0.85 < run.effective.value < 0.97


def test_figures_move_it_the_way_they_should() -> None:
    base = ask()
    assert ask(card_hours=CARD_HOURS_PER_FAILURE / 10).effective.value < base.effective.value
    assert ask(restart_s=3600.0).restarts > base.restarts
    assert ask(stop_s=120.0, every_s=1800.0).checkpoints > ask(stop_s=1.0, every_s=1800.0).checkpoints
    assert ask(every_s=12 * 3600.0).lost > base.lost
    assert ask(cards=10_240).effective.value < base.effective.value
    assert ask(straggler_sigma=0.05).stragglers > 0.05


def test_what_is_not_stated_is_marked_as_assumed() -> None:
    assumed = {row.what: row.source for row in ask().inputs}
    assert set(assumed.values()) == {Source.ASSUMED}
    stated = {row.what: row.source for row in ask(restart_s=60.0).inputs}
    assert stated["restart after a failure"] is None


def test_tokens_are_rate_times_time_kept() -> None:
    result = sample_results.training()
    assert result.tokens_per_s_per_gpu is not None
    run = ask(result)
    expected = result.tokens_per_s_per_gpu.value * 1024 * 30 * 86_400 * run.effective.value
    assert run.tokens is not None
    assert run.tokens.value == pytest.approx(expected)


@pytest.mark.parametrize("days", [0.0, -1.0, 1e9, float("nan")])
def test_impossible_times_are_refused(days: float) -> None:
    with pytest.raises(WindtunnelError) as caught:
        ask(days=days)
    assert caught.value.code == "E213"


@pytest.mark.parametrize("asked", [{"card_hours": -1.0}, {"restart_s": -5.0}, {"every_s": -60.0}])
def test_impossible_figures_are_refused(asked: dict[str, float]) -> None:
    with pytest.raises(WindtunnelError) as caught:
        ask(**asked)
    assert caught.value.code == "E213"
