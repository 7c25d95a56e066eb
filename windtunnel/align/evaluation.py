"""Paired evaluation: did two models answer the same items the same way, and is a difference more than chance?

A bare accuracy of a few hundred items moves by points from run to run; the pairing and the intervals say
whether a difference means anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from windtunnel.errors import WindtunnelError
from windtunnel.results.align_result import PairedEvaluation, Proportion

_Z95 = 1.959963984540054


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
