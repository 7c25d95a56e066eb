"""What hours of training do to a card that short benchmarks do not: power limits and host load.

The one place for both ways to a training step: recorded (``pricing.py``) and written by a recipe (``planner``).
Matrix units at full rate ask for more power than the card may draw, so clocks settle where the power fits:

    power(x) = demand × (s + (1 − s) × x × (1 − g × (1 − x))²)     for a clock of x times that of short benchmarks

``s`` is what does not fall with the clock (leakage, memory, links), and switching power is clock times voltage
squared, the voltage falling by ``g`` of its value where the clock falls to nothing. Demand is proportional to the
matrix peak, with one figure of watts per PFLOP/s for each architecture. Fitted on the calibration tables of training
steps (``validation/calibrate/training.py``); architectures without points there are left as they are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from windtunnel.program.program import ProcessGroup, StepKind
from windtunnel.program.work import Family, Work
from windtunnel.specs.schema import Chip
from windtunnel.timeline.prices import OpPrice

MATRIX_FAMILIES = frozenset(
    {Family.GEMM, Family.GROUPED_GEMM, Family.CONVOLUTION, Family.ATTENTION, Family.ATTENTION_BACKWARD}
)


TODAYS = "fused"
"""The host load of today's frameworks that measured steps determine."""

STATIC_SHARE = 0.12
"""Part of the demand that does not fall with the clock; idle cards draw 0.10 to 0.15 of their limit (assumed)."""


@dataclass(frozen=True, slots=True)
class Sustained:
    """Fitted constants.

    Attributes:
        voltage_slope: ``g`` of the power law. watts_per_pflops: demand of the BF16 matrix units by architecture.
        host_factors: host time of frameworks over that of the operations recipes write down.
        arrivals_s: how late a rank comes to a collective that all wait for, on average, by framework.
        between_s: what the host does between micro-batches (batch, schedule, loss, timers that wait for the card), for
            each forward and backward pass of a chunk, by framework.
        low, high: measured over predicted step times, 80 % interval of a framework and system not seen in the fit.
    """

    voltage_slope: float
    watts_per_pflops: tuple[tuple[str, float], ...]
    host_factors: tuple[tuple[str, float], ...]
    arrivals_s: tuple[tuple[str, float], ...]
    between_s: tuple[tuple[str, float], ...]
    low: float
    high: float

    def host_factor(self, load: str) -> float:
        """Factor on the host time of operations for a ``recipes.layout.HostLoad``; 1 with fused layers."""
        return dict(self.host_factors).get(load, 1.0)

    def last_arrival_s(self, load: str, ranks: int) -> float:
        """How much later than the mean the last of ``ranks`` comes to a blocking collective.

        Frameworks without points are taken as today's fused one: what comes apart is cards more than code.

        Ranks come apart by kernels, clocks and hosts of their own. Times between such arrivals taken as exponential,
        the last of n is late by the mean times 1/2 + 1/3 + ... + 1/n.
        """
        known = dict(self.arrivals_s)
        mean_s = known.get(load, known.get(TODAYS, 0.0)) if load else 0.0
        return mean_s * sum(1.0 / number for number in range(2, ranks + 1))

    def waits_s(
        self, prices: Sequence[OpPrice], groups: Sequence[ProcessGroup], load: str = TODAYS
    ) -> npt.NDArray[np.float64]:
        """What each operation waits for the last rank of its group: collectives that hold their stream, others 0."""
        ranks = [len(groups[price.group].ranks) if price.blocks else 1 for price in prices]
        return np.array([self.last_arrival_s(load, count) for count in ranks])

    def with_waits(self, prices: Sequence[OpPrice], groups: Sequence[ProcessGroup]) -> list[OpPrice]:
        """The same prices, collectives until the last rank has come: of a recorded step, whose own ranks are alike."""
        waits = self.waits_s(prices, groups).tolist()
        return [
            replace(p, seconds=p.seconds + s, low_s=p.low_s + s, high_s=p.high_s + s) if s else p
            for p, s in zip(prices, waits, strict=True)
        ]

    def pass_s(self, load: str) -> float:
        """Host seconds before a chunk's forward or backward pass that nothing hides; 0 where not fitted."""
        return dict(self.between_s).get(load, 0.0)

    def felt_by(self, chip: Chip, load: str) -> tuple[float, ...]:
        """All that decides a step on ``chip`` under the host load ``load``."""
        return self.slowdown(chip), self.host_factor(load), self.last_arrival_s(load, 2), self.pass_s(load)

    def slowdown(self, chip: Chip) -> float:
        """Factor on matrix kernels, at least 1; 1 for architectures without points."""
        peak = _peak(chip)
        if not self.knows(chip):
            return 1.0
        demand_w = dict(self.watts_per_pflops)[chip.architecture] * peak / 1e15
        return 1.0 / clock_share(chip.tdp_w.value / demand_w, self.voltage_slope)

    def knows(self, chip: Chip) -> bool:
        """Whether steps measured on the chip's architecture say what its matrix units draw."""
        return chip.architecture in dict(self.watts_per_pflops) and _peak(chip) > 0

    def prices(self, prices: Sequence[OpPrice], works: Sequence[Work], chip: Chip) -> list[OpPrice]:
        """The same prices at the clock that the power limit leaves matrix kernels."""
        slower = self.slowdown(chip)
        if slower == 1.0:
            return list(prices)
        return [
            replace(p, seconds=p.seconds * slower, low_s=p.low_s * slower, high_s=p.high_s * slower)
            if work.family in MATRIX_FAMILIES
            else p
            for p, work in zip(prices, works, strict=True)
        ]


def runs_for_long(kind: StepKind) -> bool:
    """Training steps follow each other for hours; a forward pass or a script is timed from an idle card."""
    return kind is StepKind.TRAIN


def unknown_power(chip: Chip, kind: StepKind) -> tuple[str, ...]:
    """What to say where a power limit may bind and nothing public tells at which clock."""
    if not runs_for_long(kind) or sustained().knows(chip):
        return ()
    return (f"no power limit: what {chip.architecture} draws over long training is not public",)


def _peak(chip: Chip) -> float:
    peak = chip.peak_flops.get("bf16") or chip.peak_flops.get("fp16")
    return peak.value if peak else 0.0


def clock_share(allowed: float, voltage_slope: float) -> float:
    """The clock at which ``allowed`` of the demanded power is drawn; 1 where all of it may be. At least a tenth."""
    if allowed >= 1.0:
        return 1.0
    low, high = 0.1, 1.0
    for _ in range(50):  # the power rises with the clock, so halving finds the one that fits
        x = (low + high) / 2
        power = STATIC_SHARE + (1 - STATIC_SHARE) * x * (1 - voltage_slope * (1 - x)) ** 2
        low, high = (x, high) if power < allowed else (low, x)
    return (low + high) / 2


@cache
def sustained() -> Sustained:
    """The shipped constants."""
    text = files("windtunnel.timeline").joinpath("parameters/training.toml").read_text("utf-8")
    table = tomllib.loads(text)
    return Sustained(
        table["voltage_slope"],
        tuple(table["watts_per_pflops"].items()),
        tuple(table["host_factors"].items()),
        tuple((name, value * 1e-6) for name, value in table["arrival_us"].items()),
        tuple((name, value * 1e-6) for name, value in table["between_us"].items()),
        table["interval"]["low"],
        table["interval"]["high"],
    )
