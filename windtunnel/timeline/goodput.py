"""Effective training time over days: stragglers, failures, checkpoints and restarts, seeded.

A job of many cards is as fast as its slowest rank, stops when any card fails, loses the work since the last
checkpoint, and pays for saving and for coming back. Failures are a Poisson process per card (constant
hazard), as published histories of large jobs are summarised (Llama 3, arXiv 2407.21783: 419 unexpected
interruptions in 54 days on 16,384 cards, so 50,700 card-hours each). All numbers are the caller's.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How often things break and what each incident costs.

    Attributes:
        card_hours_per_failure: mean time between failures of one card, in hours; inf: never.
        restart_s: from failure to the first step again: detection, rescheduling, loading.
        checkpoint_interval_s: training time between checkpoints; None: the optimum (Young's formula).
        checkpoint_s: time that training stands still for one checkpoint.
        straggler_sigma: spread of a rank's step time, as a fraction (log-normal); 0: none.
    """

    card_hours_per_failure: float
    restart_s: float
    checkpoint_s: float
    checkpoint_interval_s: float | None = None
    straggler_sigma: float = 0.0


@dataclass(frozen=True, slots=True)
class Goodput:
    """Where the wall-clock time of a long job goes; the parts sum to ``wall_s``.

    ``effective_fraction``: useful training at full speed over wall-clock time.
    """

    wall_s: float
    useful_s: float
    straggler_s: float
    checkpoint_s: float
    lost_s: float
    restart_s: float
    failures: int
    checkpoint_interval_s: float

    @property
    def effective_fraction(self) -> float:
        """Share of the wall-clock time that moved training forward."""
        return self.useful_s / self.wall_s if self.wall_s else 0.0


def best_interval_s(checkpoint_s: float, job_failure_s: float) -> float:
    """Young's first-order optimum, sqrt(2 C M) (Communications of the ACM 17(9), 1974)."""
    return math.sqrt(2 * checkpoint_s * job_failure_s)


def straggler_factor(ranks: int, sigma: float, seed: int = 0, draws: int = 64) -> float:
    """Mean of the slowest of ``ranks`` log-normal step times over the median, by sampling quantiles.

    The maximum of n draws is the ``u ** (1/n)`` quantile of one, so no rank needs a draw of its own.
    """
    if ranks < 1 or sigma < 0:
        raise _bad("ranks at least 1, spread zero or more", ranks=ranks, sigma=sigma)
    if sigma == 0:
        return 1.0
    generator = random.Random(seed)
    slowest = [_normal_quantile(generator.random() ** (1 / ranks)) for _ in range(draws)]
    return sum(math.exp(sigma * max(0.0, z)) for z in slowest) / draws


def simulate(
    wall_s: float, cards: int, reliability: Reliability, *, ranks: int = 0, seed: int = 0
) -> Goodput:
    """One seeded history of ``wall_s`` seconds on ``cards`` cards; ``ranks``: those whose slowest counts.

    Raises:
        WindtunnelError: E213 for times or counts that cannot be.
    """
    r = reliability
    if wall_s <= 0 or cards < 1 or min(r.restart_s, r.checkpoint_s) < 0 or r.card_hours_per_failure <= 0:
        raise _bad("times and counts above zero", wall_s=wall_s, cards=cards, reliability=reliability)
    mean_s = r.card_hours_per_failure * 3600 / cards
    interval_s = r.checkpoint_interval_s or best_interval_s(r.checkpoint_s, mean_s)
    if not interval_s > 0:
        raise _bad("a checkpoint interval above zero", checkpoint_interval_s=interval_s)
    generator = random.Random(seed)
    now = training = saving = lost = restarting = 0.0
    failures = 0
    while now < wall_s:
        until = min(wall_s, now + _exponential(generator, mean_s))
        cycle = interval_s + r.checkpoint_s
        whole, rest = divmod(until - now, cycle) if math.isfinite(cycle) else (0.0, until - now)
        training += whole * interval_s
        saving += whole * r.checkpoint_s
        failed = until < wall_s
        if failed:
            lost += rest  # since the last complete checkpoint, a half-written one included
            failures += 1
        else:
            training += min(rest, interval_s)
            saving += max(0.0, rest - interval_s)
        now = until
        if failed:
            back = min(r.restart_s, wall_s - now)
            restarting += back
            now += back
    useful = training / straggler_factor(ranks or cards, r.straggler_sigma, seed)
    return Goodput(wall_s, useful, training - useful, saving, lost, restarting, failures, interval_s)


def _exponential(generator: random.Random, mean_s: float) -> float:
    return -mean_s * math.log(1 - generator.random()) if math.isfinite(mean_s) else math.inf


def _normal_quantile(p: float) -> float:
    """Acklam-free: bisection on erf, exact to 1e-9 and fast enough for a few draws."""
    low, high = -9.0, 9.0
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 * (1 + math.erf(middle / math.sqrt(2))) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _bad(what: str, **values: object) -> WindtunnelError:
    return WindtunnelError(
        "E213",
        f"the reliability figures cannot be: {what} needed",
        hint="times are seconds above zero; mean time between failures is in card-hours",
        values=values,
    )
