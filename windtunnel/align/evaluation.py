"""Paired evaluation: did two models answer the same items the same way, and is a difference more than chance?

A bare accuracy of a few hundred items moves by points from run to run; the pairing and the intervals say
whether a difference means anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of items with its 95 % Wilson interval."""

    right: int
    items: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedEvaluation:
    """Two models on the same items.

    Attributes:
        only_reference, only_candidate: items that one model alone answers right.
        p_value: exact McNemar test, two-sided: how often chance alone splits the disagreements so unevenly.
    """

    reference: Proportion
    candidate: Proportion
    both: int
    only_reference: int
    only_candidate: int
    neither: int
    p_value: float

    @property
    def agreement(self) -> float:
        """Share of items on which both are right or both wrong."""
        return (self.both + self.neither) / self.reference.items


def proportion(right: int, items: int) -> Proportion:
    """Wilson score interval (Wilson 1927), which stays within [0, 1] and is honest for few items."""
    share = right / items
    spread = _Z95**2 / items
    centre = (share + spread / 2) / (1 + spread)
    half = _Z95 * math.sqrt(share * (1 - share) / items + spread / (4 * items)) / (1 + spread)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Proportion(right, items, share, min(low, share), max(high, share))


def paired(reference: Sequence[bool], candidate: Sequence[bool]) -> PairedEvaluation:
    """Compare item by item.

    Raises:
        WindtunnelError: E717 if there are no items or the numbers of items differ.
    """
    if len(reference) != len(candidate) or not reference:
        raise WindtunnelError(
            "E717",
            "a paired evaluation needs the same items from both models",
            hint="evaluate both on one fixed list of items, in one order",
            values={"reference": len(reference), "candidate": len(candidate)},
        )
    pairs = list(zip(map(bool, reference), map(bool, candidate), strict=True))
    both, only_reference, only_candidate = (
        pairs.count(kind) for kind in ((True, True), (True, False), (False, True))
    )
    items = len(pairs)
    return PairedEvaluation(
        proportion(both + only_reference, items),
        proportion(both + only_candidate, items),
        both,
        only_reference,
        only_candidate,
        items - both - only_reference - only_candidate,
        mcnemar(only_reference, only_candidate),
    )


def mcnemar(one: int, other: int) -> float:
    """Two-sided exact p-value of ``one`` against ``other`` discordant items under a fair coin."""
    flips = one + other
    tail = sum(math.comb(flips, k) for k in range(min(one, other) + 1))
    return min(1.0, 2 * tail / (1 << flips))  # integers: the powers overflow a float
