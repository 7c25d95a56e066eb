"""How much more the busiest expert rank carries than the mean: balanced, power law, measured loads or as published.

Experts are placed as engines place them. Plainly: in the order of their numbers, the same count on every rank.
With redundancy (vLLM's and SGLang's EPLB, after DeepSeek's): spare slots go to the experts with most load a
replica, then replicas are packed, heaviest first, onto the emptiest rank that has a slot left.
"""

from __future__ import annotations

import csv
import heapq
import json
import math
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from windtunnel.errors import WindtunnelError

BALANCED, FORCED, POWER_LAW, PUBLISHED = "balanced", "forced", "power-law", "published"
"""Experts equally popular, tokens choosing by chance; every step exactly even; a few experts more popular; as the
model's routing was published."""
DRAWS = 16
PUBLISHED_EXPERTS = 256
PUBLISHED_BALANCE = (
    (8, 0.943, 0.673),
    (16, 0.902, 0.613),
    (32, 0.800, 0.550),
    (72, 0.810, 0.477),
)
"""DeepSeek-V3: ranks, mean over busiest rank's tokens with a balancer and without, chance of a batch included. Read to
two digits from the chart of a simulation on recorded routing (SGLang team, 5 May 2025, ``eplb-balancedness.png``; the
last point without balancer stands at 64 ranks)."""


def busiest_over_mean(kind: str, experts: int, ranks: int, redundant: int = 0) -> float:
    """Load of the busiest rank over the mean, at least 1.

    Args:
        kind: ``balanced`` or ``forced``; ``power-law:A``, the i-th busiest expert loaded with i^-A; ``published``, as
            SGLang recorded DeepSeek-V3; or a file of loads, one number an expert (JSON list, or the last column of a
            CSV).
        redundant: spare slots; 0: no balancer, mean over a few seeded orders for a power law.

    Raises:
        WindtunnelError: E657, the loads cannot be read or do not fit the model.
    """
    if ranks <= 1 or kind in (BALANCED, FORCED):
        return 1.0
    if kind == PUBLISHED:
        return _published(experts, ranks, redundant)
    name, _, exponent = kind.partition(":")
    if name == POWER_LAW:
        loads = [(i + 1) ** -_exponent(exponent, kind) for i in range(experts)]
        if redundant:
            return _balanced(loads, ranks, redundant)
        source = random.Random(0)
        found = []
        for _ in range(DRAWS):
            source.shuffle(loads)
            found.append(_plain(loads, ranks))
        return sum(found) / len(found)
    loads = _read(Path(kind))
    if len(loads) != experts:
        raise _bad(kind, f"{len(loads)} loads for {experts} experts")
    return _balanced(loads, ranks, redundant) if redundant else _plain(loads, ranks)


def includes_chance(kind: str) -> bool:
    """Whether loads are those of batches as they came, so that none is to be drawn on top."""
    return kind in (FORCED, PUBLISHED)


def _published(experts: int, ranks: int, redundant: int) -> float:
    """Straight lines over the logarithm of ranks, from even on one rank; the last value beyond the last."""
    if experts != PUBLISHED_EXPERTS:
        raise _bad(
            PUBLISHED, f"published for DeepSeek-V3's {PUBLISHED_EXPERTS} experts, the model has {experts}"
        )
    points = [(1, 1.0), *((at, spread if redundant else plain) for at, spread, plain in PUBLISHED_BALANCE)]
    for (low, first), (high, last) in pairwise(points):
        if ranks <= high:
            share = math.log(ranks / low) / math.log(high / low)
            return 1.0 / (first + share * (last - first))
    return 1.0 / points[-1][1]


def slots_of(experts: int, ranks: int, redundant: int = 0) -> int:
    """Experts that every rank holds; whole, so that some are held twice where ranks do not divide them."""
    return -(-(experts + redundant) // ranks)


def _plain(loads: Sequence[float], ranks: int) -> float:
    share = slots_of(len(loads), ranks)
    most = max(sum(loads[first : first + share]) for first in range(0, len(loads), share))
    return max(1.0, most * ranks / sum(loads))


def _balanced(loads: Sequence[float], ranks: int, redundant: int) -> float:
    slots = slots_of(len(loads), ranks, redundant)
    replicas = [1] * len(loads)
    heap = [(-load, expert) for expert, load in enumerate(loads)]
    heapq.heapify(heap)
    for _ in range(slots * ranks - len(loads)):
        _, expert = heapq.heappop(heap)
        replicas[expert] += 1
        heapq.heappush(heap, (-loads[expert] / replicas[expert], expert))
    parts = sorted(
        (loads[expert] / count for expert, count in enumerate(replicas) for _ in range(count)), reverse=True
    )
    emptiest = [(0.0, rank, slots) for rank in range(ranks)]
    heapq.heapify(emptiest)
    most = 0.0
    for part in parts:
        load, rank, left = heapq.heappop(emptiest)
        most = max(most, load + part)
        if left > 1:
            heapq.heappush(emptiest, (load + part, rank, left - 1))
    return max(1.0, most * ranks / sum(loads))


def _exponent(text: str, kind: str) -> float:
    try:
        exponent = float(text or "1")
    except ValueError:
        exponent = -1.0
    if not 0 <= exponent < 10:
        raise _bad(kind, "the exponent is a number from 0 to 10")
    return exponent


def _read(path: Path) -> list[float]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            loads = [float(value) for value in json.loads(text)]
        else:
            rows = [row for row in csv.reader(text.splitlines()) if row]
            loads = [float(row[-1]) for row in rows if _is_number(row[-1])]
    except (OSError, ValueError, TypeError) as error:
        raise _bad(str(path), str(error)) from None
    if not loads or min(loads) < 0 or not sum(loads) > 0 or sum(loads) == float("inf"):
        raise _bad(str(path), "loads are numbers from 0, not all 0")
    return loads


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bad(kind: str, why: str) -> WindtunnelError:
    return WindtunnelError(
        "E657",
        f"cannot use the expert loads `{kind}`: {why}",
        hint="--expert-load balanced, published, power-law:1.0, or a file with one load for each expert",
    )
