"""Days of a job: many seeded histories of failures, checkpoints and stragglers around one predicted step.

What a user does not state is taken from published runs and marked as assumed:

- failures: Llama 3 405B saw 419 unexpected interruptions in 54 days on 16,384 H100 (arXiv 2407.21783, table 5),
  50,700 card-hours each. Cards of other makers have no public figure; the same is assumed of them.
- restart: MegaScale finds and diagnoses a fault in less than 10 minutes on average and has caught up from the last
  checkpoint within 15 (arXiv 2402.15627, section 6.3). Taken as 15 minutes to be back, with the lost work beside them.
- a checkpoint stops training while a card's parameters and optimizer state go to host memory over its PCIe slot;
  writing them out happens beside training (two stages, as MegaScale describes).
- how often: Young's optimum, but not more often than storage takes the state: 2 TB/s for 16,384 cards, as Llama 3's.
- stragglers: none unless stated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, quantiles

from windtunnel import units
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate, Source
from windtunnel.results.run_result import LongRun, LongRunInput, RunResult
from windtunnel.specs.schema import Chip
from windtunnel.timeline.goodput import Goodput, Reliability, best_interval_s, simulate

CARD_HOURS_PER_FAILURE = 54 * 24 * 16_384 / 419
RESTART_S = 15 * 60.0
STORAGE_BYTES_PER_S_OF_A_CARD = 2e12 / 16_384
LEAST_INTERVAL_S = 60.0
HISTORIES = 200
_STATE = ("parameter", "optimizer_state")
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRunQuestion:
    """What is asked; None: as published runs had it.

    Attributes:
        days: wall-clock time. card_hours: mean time between failures of one card. every_s: training between
            checkpoints. stop_s: standstill of one checkpoint. straggler_sigma: spread of a rank's step, log-normal.
    """

    days: float
    card_hours: float | None = None
    every_s: float | None = None
    stop_s: float | None = None
    restart_s: float | None = None
    straggler_sigma: float = 0.0
    seed: int = 0


def long_run(result: RunResult, chip: Chip, asked: LongRunQuestion) -> LongRun:
    """The job of ``result`` for days. Raises E213 for figures that cannot be."""
    if not 0 < asked.days <= 3650 or not math.isfinite(asked.straggler_sigma):
        raise WindtunnelError(
            "E213",
            f"a run of {asked.days:g} days cannot be",
            hint="ask for more than 0 and at most 3650 days, as --days 30",
        )
    reliability, inputs = _reliability(result, chip, asked)
    wall_s = asked.days * _DAY_S
    first = asked.seed * HISTORIES
    runs = [simulate(wall_s, result.cards, reliability, seed=first + n) for n in range(HISTORIES)]
    effective = _spread([run.effective_fraction for run in runs])
    return LongRun(
        days=asked.days,
        cards=result.cards,
        histories=HISTORIES,
        seed=asked.seed,
        effective=effective,
        failures=_spread([float(run.failures) for run in runs]),
        tokens=_tokens(result, wall_s, effective),
        useful=effective.value,
        stragglers=_share(runs, "straggler_s"),
        checkpoints=_share(runs, "checkpoint_s"),
        lost=_share(runs, "lost_s"),
        restarts=_share(runs, "restart_s"),
        checkpoint_interval_s=runs[0].checkpoint_interval_s,
        inputs=inputs,
    )


def _reliability(
    result: RunResult, chip: Chip, asked: LongRunQuestion
) -> tuple[Reliability, tuple[LongRunInput, ...]]:
    state_bytes = sum(size for name, size in result.memory.peak_by_category if name in _STATE)
    stop_s = asked.stop_s if asked.stop_s is not None else state_bytes / chip.pcie_bytes_per_s.value
    hours = asked.card_hours if asked.card_hours is not None else CARD_HOURS_PER_FAILURE
    restart_s = asked.restart_s if asked.restart_s is not None else RESTART_S
    every_s, rule = asked.every_s, "stated"
    if every_s is None:
        written_s = state_bytes / STORAGE_BYTES_PER_S_OF_A_CARD
        best_s = best_interval_s(stop_s, hours * 3600 / result.cards) if hours > 0 and stop_s > 0 else 0.0
        every_s, rule = max(
            (best_s, "Young's optimum"),
            (written_s, "as fast as storage takes it, 2 TB/s for 16,384 cards"),
            (LEAST_INTERVAL_S, "no more often than once a minute"),
        )
    given = (
        ("time between failures of a card", f"{hours:,.0f} h", asked.card_hours,
         "419 interruptions in 54 days on 16,384 H100, arXiv 2407.21783"),
        ("restart after a failure", units.seconds(restart_s), asked.restart_s,
         "15 minutes to be back, arXiv 2402.15627"),
        ("standstill of a checkpoint", units.seconds(stop_s), asked.stop_s,
         f"{units.gib(state_bytes)} of parameters and optimizer state over PCIe, written out beside training"),
        ("training between checkpoints", units.seconds(every_s), asked.every_s, rule),
        ("spread of a rank's step", units.percent(asked.straggler_sigma), asked.straggler_sigma or None,
         "none taken"),
    )  # fmt: skip
    inputs = tuple(
        LongRunInput(
            what=what,
            value=value,
            source=Source.ASSUMED if stated is None else None,
            where=where if stated is None else "stated",
        )
        for what, value, stated, where in given
    )
    reliability = Reliability(
        card_hours_per_failure=hours,
        restart_s=restart_s,
        checkpoint_s=stop_s,
        checkpoint_interval_s=every_s,
        straggler_sigma=asked.straggler_sigma,
    )
    return reliability, inputs


def _spread(values: list[float]) -> Estimate:
    """Mean over histories with the range that eight in ten lie in."""
    tenths = quantiles(values, n=10, method="inclusive")
    mean = fmean(values)
    return Estimate(mean, min(mean, tenths[0]), max(mean, tenths[-1]), ((Source.ASSUMED, 1.0),))


def _share(runs: list[Goodput], part: str) -> float:
    return fmean(getattr(run, part) / run.wall_s for run in runs)


def _tokens(result: RunResult, wall_s: float, effective: Estimate) -> Estimate | None:
    rate = result.tokens_per_s_per_gpu
    if rate is None:
        return None
    whole = result.cards * wall_s
    return Estimate(
        whole * rate.value * effective.value,
        whole * rate.low * effective.low,
        whole * rate.high * effective.high,
        rate.shares,
    )
