"""The rules, one by one."""

from __future__ import annotations

import pytest

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.claims.verdict import Verdict, judge
from windtunnel.estimate import Estimate, Source


def _claim(says: Says, figure: float) -> Claim:
    return Claim(
        name="x", group="g", title="t", wording="w", said="s", says=says, figure=figure, unit="u", command="c",
        evaluate=Answer,
    )  # fmt: skip


def _setting(low: float, value: float, high: float, *, stated: bool = False) -> Setting:
    return Setting(label="l", prediction=Estimate(value, low, high, ((Source.ANALYTIC, 1.0),)), stated=stated)


@pytest.mark.parametrize(
    ("says", "figure", "settings", "verdict"),
    [
        (Says.AT_LEAST, 10, [_setting(8, 9, 11, stated=True)], Verdict.REPRODUCED),
        (Says.AT_LEAST, 10, [_setting(20, 30, 40, stated=True)], Verdict.REPRODUCED),
        (Says.AT_LEAST, 10, [_setting(8, 9, 9.5, stated=True)], Verdict.NOT_REPRODUCED),
        (Says.AT_LEAST, 10, [_setting(8, 9, 11), _setting(1, 2, 3)], Verdict.PLAUSIBLE),
        (Says.AT_LEAST, 10, [_setting(1, 2, 3)], Verdict.NOT_REPRODUCED),
        (Says.AT_LEAST, 10, [_setting(8, 9, 11), _setting(1, 2, 3, stated=True)], Verdict.NOT_REPRODUCED),
        (Says.AT_MOST, 10, [_setting(8, 9, 11)], Verdict.PLAUSIBLE),
        (Says.AT_MOST, 10, [_setting(11, 12, 13)], Verdict.NOT_REPRODUCED),
        (Says.ABOUT, 10, [_setting(20, 30, 40)], Verdict.NOT_REPRODUCED),
        (Says.ABOUT, 10, [_setting(9, 9.5, 10.5)], Verdict.PLAUSIBLE),
        (Says.AT_LEAST, 10, [], Verdict.NOT_SHOWN),
    ],
)
def test_rules(says: Says, figure: float, settings: list[Setting], verdict: Verdict) -> None:
    assert judge(_claim(says, figure), Answer(settings=tuple(settings))).verdict is verdict


def test_a_figure_at_its_bound_does_not_hold() -> None:
    at_peak = Setting(label="l", prediction=_setting(8, 9, 10).prediction, bound=10)
    assert judge(_claim(Says.AT_LEAST, 10), Answer(settings=(at_peak,))).verdict is Verdict.NOT_REPRODUCED


def test_claims_without_a_figure_need_a_run() -> None:
    claim = _claim(Says.NO_FIGURE, 0)
    assert judge(claim, Answer(runs=("it ran",))).verdict is Verdict.FUNCTIONAL
    assert judge(claim, Answer(why=("words",))).verdict is Verdict.NOT_SHOWN


def test_robustness_counts_changed_outcomes() -> None:
    answer = Answer(
        settings=(_setting(8, 9, 11),),
        variations=tuple(
            Variation(assumption="a", prediction=_setting(*ends).prediction)
            for ends in ((8, 9, 10.5), (1, 2, 3))
        ),
    )
    assert judge(_claim(Says.AT_LEAST, 10), answer).robust == (1, 2)
