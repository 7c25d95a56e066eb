"""The rules that turn predictions into verdicts. They stand here and nowhere else; pages print ``MEANING``.

A setting *holds* where the claim's figure lies inside our 80 % interval; a claim of "at least" (or "at most")
also where the whole interval lies above (or below) it. No setting holds where the figure is at its physical bound or
beyond: a bound is not reached. No setting holds whose number is the claimant's own: a data sheet that agrees with
itself shows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.estimate import Estimate


class Verdict(StrEnum):
    """What became of a claim."""

    REPRODUCED = "reproduced"
    PLAUSIBLE = "plausible"
    DATA_SHEET = "data sheet only"
    NOT_REPRODUCED = "not reproduced"
    FUNCTIONAL = "functional"
    NOT_SHOWN = "not shown"


MEANING: tuple[tuple[Verdict, str], ...] = (
    (
        Verdict.REPRODUCED,
        "the figure lies inside our 80 % interval (or, for a claim of at least or at most, on the right side of it) at "
        "every setting that the source states",
    ),
    (
        Verdict.PLAUSIBLE,
        "the source does not state all settings that matter, and the figure lies so at one or more of those "
        "that we list",
    ),
    (
        Verdict.DATA_SHEET,
        "the figure is the maker's own or counted from it, and no reading that does not come from the maker gets to it",
    ),
    (Verdict.NOT_REPRODUCED, "no setting gives the figure, or one that the source states does not"),
    (Verdict.FUNCTIONAL, "the claim has no figure, and what it names runs on the virtual card"),
    (Verdict.NOT_SHOWN, "nothing that we have run or can compute says anything about it"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim, its answer and the verdict that follows.

    Attributes:
        varied: the verdict under each variation of the answer, in their order.
    """

    claim: Claim
    answer: Answer
    verdict: Verdict
    varied: tuple[Verdict, ...]

    @property
    def best(self) -> Setting | None:
        """See ``best``."""
        return best(self.claim, self.answer.settings)

    @property
    def robust(self) -> tuple[int, int]:
        """How many variations leave the verdict as it is, of how many."""
        return sum(verdict is self.verdict for verdict in self.varied), len(self.varied)


def judge(claim: Claim, answer: Answer) -> Finding:
    """Apply the rules."""
    verdict = _verdict(claim, answer)
    return Finding(claim, answer, verdict, tuple(_under(claim, answer, one) for one in answer.variations))


def agrees(claim: Claim, prediction: Estimate, bound: float | None = None) -> bool:
    """Whether the claim's figure agrees with ``prediction`` and lies within its physical ``bound``."""
    if claim.says is Says.AT_LEAST and bound is not None and claim.figure >= bound:
        return False
    if claim.says is Says.AT_LEAST:
        return prediction.high >= claim.figure
    if claim.says is Says.AT_MOST:
        return prediction.low <= claim.figure
    return prediction.low <= claim.figure <= prediction.high


def reaches(claim: Claim, value: float) -> bool:
    """Whether a prediction reaches the figure by itself, not only by its interval."""
    if claim.says is Says.AT_MOST:
        return value <= claim.figure
    return value >= claim.figure


def holds(claim: Claim, setting: Setting) -> bool:
    """Whether a setting holds."""
    return not setting.claimant and agrees(claim, setting.prediction, setting.bound)


def best(claim: Claim, settings: tuple[Setting, ...]) -> Setting | None:
    """The setting nearest to holding, of those that hold and are not the claimant's own where there are any."""
    open_to_all = tuple(setting for setting in settings if not setting.claimant)
    candidates = tuple(setting for setting in settings if holds(claim, setting)) or open_to_all or settings
    if not candidates:
        return None
    if claim.says is Says.AT_LEAST:
        return max(candidates, key=lambda setting: setting.prediction.value)
    if claim.says is Says.AT_MOST:
        return min(candidates, key=lambda setting: setting.prediction.value)
    return min(candidates, key=lambda setting: abs(setting.prediction.value - claim.figure))


def _verdict(claim: Claim, answer: Answer) -> Verdict:
    if claim.says is Says.NO_FIGURE:
        return Verdict.FUNCTIONAL if answer.runs else Verdict.NOT_SHOWN
    if not answer.settings:
        return Verdict.NOT_SHOWN
    stated = [setting for setting in answer.settings if setting.stated and not setting.claimant]
    if stated:
        all_hold = all(holds(claim, setting) for setting in stated)
        return Verdict.REPRODUCED if all_hold else Verdict.NOT_REPRODUCED
    if any(holds(claim, setting) for setting in answer.settings):
        return Verdict.PLAUSIBLE
    own = [setting for setting in answer.settings if setting.claimant]
    if any(agrees(claim, setting.prediction, setting.bound) for setting in own):
        return Verdict.DATA_SHEET
    return Verdict.NOT_REPRODUCED


def _under(claim: Claim, answer: Answer, changed: Variation) -> Verdict:
    """The verdict if the best setting, and it alone, were as changed; the claimant's own settings stay."""
    if changed.prediction is None:
        return _verdict(claim, answer) if changed.runs else Verdict.NOT_SHOWN
    chosen = best(claim, answer.settings)
    stated = chosen is not None and chosen.stated
    own = tuple(setting for setting in answer.settings if setting.claimant)
    instead = Setting(label=changed.becomes, prediction=changed.prediction, stated=stated)
    return _verdict(claim, Answer(settings=(instead, *own)))
