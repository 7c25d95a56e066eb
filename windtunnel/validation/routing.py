"""How many tokens the experts of one rank receive in benchmarks that skew their routing.

aiconfigurator's ``power_law_a`` draws expert loads from a power law of exponent a between 1 and 0.8 × tokens,
scales them to tokens × top-k, and times the rank with the largest load. The expectation is taken over a few
seeded draws, so equal inputs give equal answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

import numpy as np

from windtunnel.cost.kernel_time import Floats

_DRAWS = 24

GROUP_SIZES = (1, 1, 2, 4, 8, 16, 32)
"""Experts are gathered from the most loaded down, in groups of these sizes and a last one of all others."""


@dataclass(frozen=True, slots=True)
class RankLoad:
    """What reaches the experts of the most loaded rank.

    Attributes:
        tokens: that come to the layer, whichever experts they chose.
        rows: (token, expert) pairs. active: experts with at least one.
        counts, loads: experts of each group and the rows that one of them receives.
    """

    tokens: float
    rows: float
    active: float
    counts: tuple[float, ...]
    loads: tuple[float, ...]

    def with_remote_rows(self, tokens: int, top_k: int) -> RankLoad:
        """The same rank where the benchmark gives it all top-k rows of every token that reaches it, and sends those of
        other ranks' experts to its first expert, with weight zero.
        """
        arriving = min(self.rows, float(tokens))
        remote = arriving * top_k - self.rows
        if remote <= 0:
            return replace(self, tokens=arriving)
        first = remote + self.rows / self.active
        counts = (1.0, *self.counts[:-1], max(self.counts[-1] - 1.0, 0.0))
        return RankLoad(arriving, self.rows + remote, self.active, counts, (first, *self.loads))

    def in_blocks(self, block_rows: int) -> RankLoad:
        """The same rank where rows of different experts share blocks, each run on the weights of one expert."""
        active = min(self.active, float(ceil(self.rows / block_rows)))
        if active == self.active:
            return self
        return replace(self, active=active, counts=(active,), loads=(self.rows / active,))


def rank_load(
    tokens: int, top_k: int, experts: int, ranks: int, exponent: float, *, spare: str = ""
) -> RankLoad:
    """What the most loaded of ``ranks`` receives; ``exponent`` 0 is balanced.

    Args:
        spare: of collectors that round loads to whole rows, who receives the rows that are then missing: the ``most``
            or the ``least`` loaded experts. Empty: nothing is rounded.
    """
    return _rank_load(tokens, top_k, experts, ranks, exponent, spare)


@lru_cache(maxsize=65536)
def _rank_load(tokens: int, top_k: int, experts: int, ranks: int, exponent: float, spare: str) -> RankLoad:
    local = max(1, experts // ranks)
    whole = float(tokens * top_k)
    if exponent <= 0:
        rows = max(whole / ranks, 1.0)
        active = min(float(local), rows)
        return RankLoad(float(tokens), rows, active, (active,), (rows / active,))
    draw = np.random.default_rng(0).random((_DRAWS, experts))
    low, high = (1.0, max(0.8 * tokens, 2.0)) if whole > experts else (0.01, 2.0)
    power = 1.0 - exponent
    loads = (draw * (high**power - low**power) + low**power) ** (1.0 / power)
    loads = loads / loads.sum(axis=1, keepdims=True) * whole
    loads = _counted(loads, int(whole), spare) if spare else loads
    loads = np.minimum(loads, float(tokens))
    by_rank = loads[:, : local * ranks].reshape(_DRAWS, ranks, local)
    heaviest = by_rank.sum(axis=2).argmax(axis=1)
    chosen = by_rank[np.arange(_DRAWS), heaviest]
    rows = chosen.sum(axis=1).mean()
    active = np.minimum(1.0, chosen).sum(axis=1).mean()
    counts, means = _groups(-np.sort(-chosen, axis=1))
    return RankLoad(float(tokens), max(float(rows), 1.0), max(float(active), 1.0), counts, means)


def _counted(loads: Floats, whole: int, spare: str) -> Floats:
    """Loads as whole rows: rounded, and what is missing given to experts in turn, those of equal load in their order.

    With few tokens most loads round to nothing, so that the first experts receive those rows: one rank's.
    """
    counted = np.round(loads)
    for row in counted:
        missing = int(whole - row.sum())
        order = np.argsort(row if spare == "least" else -row, kind="stable")
        if missing > 0:
            row += missing // len(row)
            row[order[: missing % len(row)]] += 1.0
        elif missing < 0:
            row[np.argsort(-row, kind="stable")[:-missing]] -= 1.0
    return counted


def _groups(loads: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sizes and mean loads of groups of experts in descending order; experts of less than a row count in part."""
    counts, means = [], []
    start = 0
    for size in (*GROUP_SIZES, loads.shape[1]):
        part = loads[:, start : start + size]
        if part.size:
            present = np.minimum(1.0, part).sum(axis=1).mean()
            counts.append(float(present))
            means.append(float(part.sum(axis=1).mean() / max(present, 1e-9)))
        start += size
    return tuple(counts), tuple(means)
