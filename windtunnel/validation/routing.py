"""How many tokens the experts of one rank receive in benchmarks that skew their routing.

aiconfigurator's ``power_law_a`` draws expert loads from a power law of exponent a between 1 and 0.8 × tokens,
scales them to tokens × top-k, and times the rank with the largest load. The expectation is taken over a few
seeded draws, so equal inputs give equal answers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_DRAWS = 24


@lru_cache(maxsize=65536)
def rank_load(tokens: int, top_k: int, experts: int, ranks: int, exponent: float) -> tuple[float, float]:
    """Rows of the most loaded rank and its experts with at least one row; ``exponent`` 0 is balanced."""
    local = max(1, experts // ranks)
    whole = float(tokens * top_k)
    if exponent <= 0:
        rows = whole / ranks
        return max(rows, 1.0), min(float(local), max(rows, 1.0))
    draw = np.random.default_rng(0).random((_DRAWS, experts))
    low, high = (1.0, max(0.8 * tokens, 2.0)) if whole > experts else (0.01, 2.0)
    power = 1.0 - exponent
    loads = (draw * (high**power - low**power) + low**power) ** (1.0 / power)
    loads = loads / loads.sum(axis=1, keepdims=True) * whole
    loads = np.minimum(loads, float(tokens))
    by_rank = loads[:, : local * ranks].reshape(_DRAWS, ranks, local)
    heaviest = by_rank.sum(axis=2).argmax(axis=1)
    chosen = by_rank[np.arange(_DRAWS), heaviest]
    rows = chosen.sum(axis=1).mean()
    active = np.minimum(1.0, chosen).sum(axis=1).mean()
    return max(float(rows), 1.0), max(float(active), 1.0)
