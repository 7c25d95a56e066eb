"""Paired evaluation against published values."""

from __future__ import annotations

import pytest

from windtunnel.align.evaluation import mcnemar, paired, proportion
from windtunnel.errors import WindtunnelError


def test_wilson_interval() -> None:
    # Newcombe 1998, table 1: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    found = proportion(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (proportion(0, 20).low, proportion(0, 20).high) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert proportion(20, 20).high == 1.0


def test_mcnemar_is_the_binomial_test() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(2, 12) == pytest.approx(0.01293, abs=1e-5)
    assert mcnemar(900, 1100) == mcnemar(1100, 900) < 1e-4


def test_pairs() -> None:
    found = paired([True, True, False, False], [True, False, True, False])
    assert (found.both, found.only_reference, found.only_candidate, found.neither) == (1, 1, 1, 1)
    assert found.agreement == 0.5
    assert found.reference.value == found.candidate.value == 0.5
    assert found.p_value == 1.0


def test_equal_accuracy_can_hide_disagreement() -> None:
    found = paired([True] * 50 + [False] * 50, [False] * 50 + [True] * 50)
    assert found.reference.value == found.candidate.value
    assert found.agreement == 0.0


@pytest.mark.parametrize(("one", "other"), [([], []), ([True], [True, False])])
def test_refusals(one: list, other: list) -> None:
    with pytest.raises(WindtunnelError) as caught:
        paired(one, other)
    assert caught.value.code == "E717"
