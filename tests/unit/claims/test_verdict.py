"""The rules, one by one."""

from __future__ import annotations

import pytest

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.claims.verdict import MEANING, Verdict, best, judge
from windtunnel.estimate import Estimate, Source


def _claim(says: Says, figure: float) -> Claim:
    return Claim(
        name="x", group="g", title="t", wording="w", said="s", says=says, figure=figure, unit="u", command="c",
        evaluate=Answer,
    )  # fmt: skip


def _setting(
    low: float, value: float, high: float, *, stated: bool = False, claimant: bool = False
) -> Setting:
    prediction = Estimate(value, low, high, ((Source.ANALYTIC, 1.0),))
    return Setting(label="l", prediction=prediction, stated=stated, claimant=claimant)


OWN = _setting(10, 10, 10, claimant=True)


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
        (Says.AT_LEAST, 10, [OWN], Verdict.DATA_SHEET),
        (Says.AT_LEAST, 10, [OWN, _setting(8, 9, 9.5)], Verdict.DATA_SHEET),
        (Says.AT_LEAST, 10, [OWN, _setting(8, 9, 11)], Verdict.PLAUSIBLE),
        (Says.AT_LEAST, 11, [OWN, _setting(8, 9, 9.5)], Verdict.NOT_REPRODUCED),
        (Says.AT_LEAST, 10, [OWN, _setting(8, 9, 9.5, stated=True)], Verdict.NOT_REPRODUCED),
    ],
)
def test_rules(says: Says, figure: float, settings: list[Setting], verdict: Verdict) -> None:
    assert judge(_claim(says, figure), Answer(settings=tuple(settings))).verdict is verdict


def test_a_data_sheet_that_is_called_stated_reproduces_nothing() -> None:
    own = _setting(10, 10, 10, stated=True, claimant=True)
    assert judge(_claim(Says.AT_LEAST, 10), Answer(settings=(own,))).verdict is Verdict.DATA_SHEET


def test_the_best_setting_is_not_the_claimants_own() -> None:
    claim, other = _claim(Says.AT_LEAST, 10), _setting(8, 9, 9.5)
    assert best(claim, (OWN, other)) is other
    assert best(claim, (OWN,)) is OWN


def test_a_figure_at_its_bound_does_not_hold() -> None:
    at_peak = Setting(label="l", prediction=_setting(8, 9, 10).prediction, bound=10)
    assert judge(_claim(Says.AT_LEAST, 10), Answer(settings=(at_peak,))).verdict is Verdict.NOT_REPRODUCED


def test_claims_without_a_figure_need_a_run() -> None:
    claim = _claim(Says.NO_FIGURE, 0)
    assert judge(claim, Answer(runs=("it ran",))).verdict is Verdict.FUNCTIONAL
    assert judge(claim, Answer(why=("words",))).verdict is Verdict.NOT_SHOWN


def test_each_changed_assumption_has_its_verdict() -> None:
    answer = Answer(
        settings=(OWN, _setting(8, 9, 11)),
        variations=tuple(
            Variation(of="a", becomes="b", prediction=_setting(*ends).prediction)
            for ends in ((8, 9, 10.5), (1, 2, 3))
        ),
    )
    found = judge(_claim(Says.AT_LEAST, 10), answer)
    assert found.varied == (Verdict.PLAUSIBLE, Verdict.DATA_SHEET)
    assert found.robust == (1, 2)


def test_a_run_that_stops_under_another_assumption_is_not_shown() -> None:
    answer = Answer(
        runs=("it ran",), variations=(Variation(of="a", becomes="b", outcome="too large", runs=False),)
    )
    assert judge(_claim(Says.NO_FIGURE, 0), answer).varied == (Verdict.NOT_SHOWN,)


def test_every_verdict_is_explained() -> None:
    assert [verdict for verdict, _ in MEANING] == list(Verdict)
