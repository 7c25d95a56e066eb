"""A public claim: its words, what it says in numbers, and what we find at each setting it may have been made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from windtunnel.claims.region import Region, Turn
from windtunnel.estimate import Estimate


class Says(StrEnum):
    """How a claim's figure is meant."""

    AT_LEAST = "at least"
    AT_MOST = "at most"
    ABOUT = "about"
    NO_FIGURE = "no figure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to read the claim, and what we predict for it.

    Attributes:
        label: what was run, in words.
        prediction: in the claim's unit, with an 80 % interval.
        bound: the most that data-sheet peaks or counting alone allow, in the same unit; None where there is none.
        stated: whether the source itself names these settings.
        claimant: the number is the claimant's own (its data sheet, or counted from it), so that agreement says nothing.
        command: prints this prediction.
    """

    label: str
    prediction: Estimate
    bound: float | None = None
    stated: bool = False
    claimant: bool = False
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One assumption changed.

    Attributes:
        of: the assumption, as the claim lists it. becomes: what is taken instead.
        prediction: what the best setting then gives; None where the claim has no figure.
        outcome: what happens then, in words, where there is no figure. runs: whether it still does.
    """

    of: str
    becomes: str
    prediction: Estimate | None = None
    outcome: str = ""
    runs: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """An assumption that cannot turn the verdict, and why."""

    of: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What evaluating a claim gave.

    Attributes:
        settings: at least one where the claim has a figure.
        variations: the best setting with one assumption changed at a time.
        steady: assumptions that cannot turn the verdict.
        regions: the plausible settings searched. turns: how far one quantity must move to turn the outcome.
        would_take: what would have to be true where the claim is not reached, in words.
        why: the arithmetic, line by line, down to operations.
        runs: evidence that something runs, where no figure was published.
    """

    settings: tuple[Setting, ...] = ()
    variations: tuple[Variation, ...] = ()
    steady: tuple[Steady, ...] = ()
    regions: tuple[Region, ...] = ()
    turns: tuple[Turn, ...] = ()
    would_take: str = ""
    why: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim and how it is checked.

    Attributes:
        name: what the command line calls it. group: heading on the page.
        wording: what was said. said: where and when.
        figure: the number claimed, in ``unit``; 0 where there is none.
        workload: what is known of the run behind it. assumed: what we took for the rest; the answer varies each or
            says why it cannot turn the verdict.
        command: reproduces the main prediction.
        evaluate: computes the answer.
    """

    name: str
    group: str
    title: str
    wording: str
    said: str
    says: Says
    figure: float = 0.0
    unit: str = ""
    workload: str = ""
    assumed: tuple[str, ...] = ()
    command: str
    evaluate: Callable[[], Answer] = field(repr=False)
