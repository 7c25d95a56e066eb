"""From served requests to the figures of a result: percentiles, throughput, goodput."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windtunnel.errors import WindtunnelError
from windtunnel.results.serving_result import QUANTILES, Limit, Moment, Spread, TierUse
from windtunnel.serving.engine import Replica
from windtunnel.serving.gaps import columns
from windtunnel.serving.request import Served

NOTHING = Spread(0.0, 0.0, 0.0, 0.0)
METRICS = ("ttft", "tpot", "itl", "e2e")
PERCENTILES = ("mean", "p50", "p90", "p99")


@dataclass(frozen=True, slots=True)
class Sla:
    """One term: ``percentile`` of ``what`` at most ``most_s`` seconds."""

    what: str
    percentile: str
    most_s: float


def parse_sla(text: str) -> tuple[Sla, ...]:
    """``ttft:p99<2s,tpot<50ms`` (p90 where no percentile is named).

    Raises:
        WindtunnelError: E654, it cannot be read.
    """
    return tuple(_term(part.strip(), text) for part in text.split(",") if part.strip())


def _term(part: str, text: str) -> Sla:
    left, sign, right = part.partition("<")
    what, _, percentile = left.strip().lower().partition(":")
    right = right.removeprefix("=").strip().lower()
    scale = 1e-3 if right.endswith("ms") else 1.0
    number = right.removesuffix("ms").removesuffix("s").strip()
    try:
        most = float(number) * scale
    except ValueError:
        most = -1.0
    percentile = percentile or "p90"
    if not sign or what not in METRICS or percentile not in PERCENTILES or not 0 < most < float("inf"):
        raise WindtunnelError(
            "E654",
            f"cannot read `{part}` in the SLA `{text}`",
            hint="for example --sla 'ttft:p99<2s,tpot:p90<50ms'",
            values={"metrics": ", ".join(METRICS), "percentiles": ", ".join(PERCENTILES)},
        )
    return Sla(what, percentile, most)


def spread(values: Sequence[float]) -> Spread:
    """Mean and percentiles, straight between order statistics."""
    if not values:
        return NOTHING
    array = np.asarray(values)
    p50, p90, p99 = np.percentile(array, (50, 90, 99)).tolist()
    return Spread(float(array.mean()), p50, p90, p99)


def quantiles(values: Sequence[float]) -> tuple[float, ...]:
    """The distribution at ``QUANTILES``; nothing of nothing."""
    return tuple(np.quantile(np.asarray(values), QUANTILES).tolist()) if values else ()


def moments(replicas: Sequence[Replica], most: int = 240) -> tuple[Moment, ...]:
    """Queue and cache of all replicas together, at up to ``most`` times."""
    end = max((replica.now_s for replica in replicas), default=0.0)
    whole = sum(rank.pool.capacity for replica in replicas for rank in replica.ranks)
    found = []
    places = [0] * len(replicas)
    for step in range(1, most + 1):
        now, used, running, waiting = end * step / most, 0, 0, 0
        for index, replica in enumerate(replicas):
            samples = replica.used_blocks
            while places[index] < len(samples) and samples[places[index]][0] <= now:
                places[index] += 1
            if places[index]:
                sample = samples[places[index] - 1]
                used, running, waiting = used + sample[1], running + sample[2], waiting + sample[3]
        found.append(Moment(now, used / whole, running, waiting))
    return tuple(found)


def tier_uses(replicas: Sequence[Replica]) -> tuple[TierUse, ...]:
    """Tiers of cache beyond the card, nearest first."""
    ranks = [rank for replica in replicas for rank in replica.ranks]
    kept = [rank.tiers.tiers for rank in ranks if rank.tiers is not None]
    if not kept:
        return ()
    queries = sum(rank.queries for rank in ranks)
    found = []
    for place, first in enumerate(kept[0]):
        tiers = [one[place] for one in kept]
        shelves = {id(tier.shelf): tier.shelf for tier in tiers}.values()
        read, written = sum(tier.read for tier in tiers), sum(tier.written for tier in tiers)
        found.append(
            TierUse(
                name=first.spec.name,
                capacity_tokens=first.spec.capacity_tokens,
                tokens=sum(shelf.tokens for shelf in shelves),
                hit_fraction=read / queries if queries else 0.0,
                asked=sum(tier.asked for tier in tiers),
                read=read,
                written=written,
                dropped=sum(shelf.dropped for shelf in shelves),
                read_bytes=read * first.spec.token_bytes,
                written_bytes=written * first.spec.token_bytes,
                bytes_per_s=first.spec.read_bytes_per_s,
            )
        )
    return tuple(found)


def weighted_spread(values: NDArray[np.float64], weights: NDArray[np.float64]) -> Spread:
    """The same for values that occur several times each."""
    if not len(values):
        return NOTHING
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    places = np.cumsum(weights) / weights.sum()
    found = [float(values[min(int(np.searchsorted(places, q)), len(values) - 1)]) for q in (0.5, 0.9, 0.99)]
    return Spread(float((values * weights).sum() / weights.sum()), *found)


def latencies(served: Sequence[Served], replicas: Iterable[Replica]) -> dict[str, Spread]:
    """TTFT, TPOT, ITL and E2E by name."""
    return spreads(seen(served), replicas)


class Seen(NamedTuple):
    """What requests saw, in seconds; ``tpot_s``: of those with more than one token."""

    ttft_s: list[float]
    tpot_s: list[float]
    e2e_s: list[float]


def seen(served: Iterable[Served], later_s: float = 0.0) -> Seen:
    """All of it in one pass, as ``Served`` says it of each; ``later_s``: from the engine to its client."""
    ttft_s, tpot_s, e2e_s = found = Seen([], [], [])
    for request, _, first_s, finished_s, *_ in served:
        first_s += later_s
        finished_s += later_s
        ttft_s.append(first_s - request.arrival_s)
        e2e_s.append(finished_s - request.arrival_s)
        if request.output_tokens > 1:
            tpot_s.append((finished_s - first_s) / (request.output_tokens - 1))
    return found


def spreads(seen: Seen, replicas: Iterable[Replica]) -> dict[str, Spread]:
    """Their latencies by name."""
    return {
        "ttft": spread(seen.ttft_s),
        "tpot": spread(seen.tpot_s),
        "itl": weighted_spread(*columns(replica.gaps for replica in replicas)),
        "e2e": spread(seen.e2e_s),
    }


def limits(terms: Sequence[Sla], found: dict[str, Spread]) -> tuple[Limit, ...]:
    """Every term with what came out."""
    return tuple(
        Limit(term.what, term.percentile, term.most_s, found[term.what].to_dict()[term.percentile])
        for term in terms
    )


def good(one: Served, terms: Sequence[Sla]) -> bool:
    """Whether one request kept to the terms; ITL is judged by its TPOT."""
    return all(_of_one(one, term.what) <= term.most_s for term in terms)


def _of_one(one: Served, what: str) -> float:
    if what == "ttft":
        return one.ttft_s
    return one.e2e_s if what == "e2e" else one.tpot_s or 0.0
