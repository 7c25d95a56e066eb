"""What the terminal and the page say about a comparison, in one wording."""

from __future__ import annotations

import math

from windtunnel.results.align_result import AlignResult, Judged, Place

PUBLISHED = 0.0062
"""The loss deviation that BAAI reports for RoboBrain 2.5 on S5000 against H100, without a definition."""
SHOWN_TENSORS = 12


def verdict(result: AlignResult) -> str:
    """The answer in one line."""
    how = "as on" if result.aligned else "differently from"
    return f"{result.candidate.target} trains this model {how} {result.reference.target}"


def value(judged: Judged) -> str:
    """A deviation in its own unit."""
    return amount(judged, judged.deviation.value)


def amount(judged: Judged, number: float) -> str:
    """A number in the unit of a deviation."""
    sign = "+" if judged.deviation.signed else ""
    if judged.deviation.name.endswith("_nats"):
        return f"{number:{sign}.4f} nats"
    return percent(number, signed=judged.deviation.signed)


def percent(number: float, *, signed: bool = False) -> str:
    """A fraction in percent with three figures where it is small."""
    if not math.isfinite(number):
        return "∞"
    size = abs(100 * number)
    digits = 2 if size >= 1 else 3 if size >= 0.01 else 5
    return f"{100 * number:{'+' if signed else ''}.{0 if number == 0 else digits}f} %"


def interval(judged: Judged) -> str:
    """Where the value would lie if the candidate had only been rounded otherwise."""
    low, high = judged.interval
    return f"{amount(judged, low)} to {amount(judged, high)}"


def floor(judged: Judged) -> str:
    """The replicas' mean and spread."""
    return f"{amount(judged, judged.floor_mean)} ± {amount(judged, judged.floor_std).lstrip('+')}"


def z(judged: Judged) -> str:
    """The z-score."""
    return f"{judged.z:+.1f}" if math.isfinite(judged.z) else "∞"


def could_be_published(judged: Judged) -> str:
    """Whether 0.62 % could be this definition, judged by what rounding alone does at this scale."""
    if judged.deviation.name.endswith("_nats"):
        return "not in percent"
    typical = max(abs(entry) for entry in judged.floor) if judged.deviation.signed else judged.floor_mean
    if 0.5 * typical > PUBLISHED:
        return "not at this scale"
    return "possible"


def published(result: AlignResult) -> str:
    """One paragraph on the public figure."""
    possible = [j.deviation.name for j in result.deviations if could_be_published(j).startswith("possible")]
    words = (
        "BAAI reports 0.62 % loss deviation for RoboBrain 2.5 on S5000 against H100 without saying of what. "
        "The same two runs give a different figure by each definition below; "
    )
    if not result.deviations:
        return words + "here the candidate diverged, so there is none."
    if not possible:
        return words + "at this scale rounding alone exceeds it by every definition in percent."
    return words + (
        f"of these, {', '.join(possible)} could be it: rounding alone does not exceed 0.62 % much by "
        f"{'them' if len(possible) > 1 else 'it'} at this scale. A larger model and batch have a lower floor."
    )


def place(found: Place) -> str:
    """A place in words."""
    module = found.module or "outside modules"
    return f"{module} at {found.line}: {percent(found.error)}"


def limit(found: Place) -> str:
    """What a place is the first of."""
    return "first difference" if found.limit == 0 else f"first over {found.limit:.0%}"
