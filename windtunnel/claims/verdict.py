"""The rules that turn predictions into verdicts. They stand here and nowhere else.

A setting *holds* where the claim's figure lies inside our 80 % interval; a claim of "at least" (or "at most")
also where the whole interval lies above (or below) it. No setting holds where the figure is at its physical bound or
beyond: a bound is not reached.

* reproduced: every setting that the source states holds.
* plausible: the source states no setting, or not all that matters, and at least one listed setting holds.
* not reproduced: no setting holds, or a stated one does not.
* functional: the claim has no figure, and what it names runs.
* not shown: nothing on record says anything about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from windtunnel.claims.claim import Answer, Claim, Says, Setting
from windtunnel.estimate import Estimate


class Verdict(StrEnum):
    """What became of a claim."""

    REPRODUCED = "reproduced"
    PLAUSIBLE = "plausible"
    NOT_REPRODUCED = "not reproduced"
    FUNCTIONAL = "functional"
    NOT_SHOWN = "not shown"


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim, its answer and the verdict that follows.

    Attributes:
        robust: how many of the variations leave the best setting's outcome as it is, of how many.
    """

    claim: Claim
    answer: Answer
    verdict: Verdict
    robust: tuple[int, int]

    @property
    def best(self) -> Setting | None:
        """The setting nearest to holding: highest prediction for "at least", else nearest to the figure."""
        return best(self.claim, self.answer.settings)


def judge(claim: Claim, answer: Answer) -> Finding:
    """Apply the rules."""
    kept = sum(
        holds(claim, variation.prediction) == _any_holds(claim, answer.settings)
        for variation in answer.variations
    )
    return Finding(claim, answer, _verdict(claim, answer), (kept, len(answer.variations)))


def holds(claim: Claim, prediction: Estimate, bound: float | None = None) -> bool:
    """Whether the claim's figure agrees with ``prediction`` and lies within its physical ``bound``."""
    if claim.says is Says.AT_LEAST and bound is not None and claim.figure >= bound:
        return False
    if claim.says is Says.AT_LEAST:
        return prediction.high >= claim.figure
    if claim.says is Says.AT_MOST:
        return prediction.low <= claim.figure
    return prediction.low <= claim.figure <= prediction.high


def best(claim: Claim, settings: tuple[Setting, ...]) -> Setting | None:
    """See ``Finding.best``."""
    if not settings:
        return None
    if claim.says is Says.AT_LEAST:
        return max(settings, key=lambda setting: setting.prediction.value)
    if claim.says is Says.AT_MOST:
        return min(settings, key=lambda setting: setting.prediction.value)
    return min(settings, key=lambda setting: abs(setting.prediction.value - claim.figure))


def _verdict(claim: Claim, answer: Answer) -> Verdict:
    if claim.says is Says.NO_FIGURE:
        return Verdict.FUNCTIONAL if answer.runs else Verdict.NOT_SHOWN
    if not answer.settings:
        return Verdict.NOT_SHOWN
    stated = [setting for setting in answer.settings if setting.stated]
    if stated:
        all_hold = all(holds(claim, setting.prediction, setting.bound) for setting in stated)
        return Verdict.REPRODUCED if all_hold else Verdict.NOT_REPRODUCED
    return Verdict.PLAUSIBLE if _any_holds(claim, answer.settings) else Verdict.NOT_REPRODUCED


def _any_holds(claim: Claim, settings: tuple[Setting, ...]) -> bool:
    stated = tuple(setting for setting in settings if setting.stated)
    if stated:
        return all(holds(claim, setting.prediction, setting.bound) for setting in stated)
    return any(holds(claim, setting.prediction, setting.bound) for setting in settings)
