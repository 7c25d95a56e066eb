"""A public claim: its words, what it says in numbers, and what we find at each setting it may have been made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

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
        command: prints this prediction.
    """

    label: str
    prediction: Estimate
    bound: float | None = None
    stated: bool = False
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One assumption changed, and what the best setting then gives."""

    assumption: str
    prediction: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What evaluating a claim gave.

    Attributes:
        settings: at least one where the claim has a figure.
        variations: the best setting with one assumption changed at a time.
        would_take: what would have to be true where the claim is not reached.
        why: the arithmetic, line by line, down to operations.
        runs: evidence that something runs, where no figure was published.
    """

    settings: tuple[Setting, ...] = ()
    variations: tuple[Variation, ...] = ()
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
        workload: what is known of the run behind it. assumed: what we took for the rest.
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
