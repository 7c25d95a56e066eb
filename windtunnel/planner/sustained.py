"""What hours of training do to a card that short benchmarks do not: power limits and host load.

Matrix units at full rate ask for more power than the card may draw, so clocks settle lower than in short
benchmarks: the clock is ``(limit / demand) ** exponent`` of theirs where demand exceeds the limit, demand
proportional to the matrix peak with one figure of watts per PFLOP/s for each architecture. Fitted on the
calibration tables of training steps (``validation/calibrate/training.py``); architectures without points
there are left as they are.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from windtunnel.program.work import Family
from windtunnel.recipes.layout import HostLoad
from windtunnel.specs.schema import Chip

MATRIX_FAMILIES = frozenset(
    {Family.GEMM, Family.GROUPED_GEMM, Family.CONVOLUTION, Family.ATTENTION, Family.ATTENTION_BACKWARD}
)


@dataclass(frozen=True, slots=True)
class Sustained:
    """Fitted constants.

    Attributes:
        exponent: of clock against power. watts_per_pflops: demand of the BF16 matrix units by architecture.
        host_factors: host time of frameworks over that of the operations recipes write down.
        low, high: measured over predicted step times, 10 % and 90 % of the fit's residuals.
    """

    exponent: float
    watts_per_pflops: tuple[tuple[str, float], ...]
    host_factors: tuple[tuple[str, float], ...]
    low: float
    high: float

    def host_factor(self, load: HostLoad) -> float:
        """Factor on the host time of operations; 1 with fused layers."""
        return dict(self.host_factors).get(str(load), 1.0)

    def slowdown(self, chip: Chip) -> float:
        """Factor on matrix kernels, at least 1; 1 for architectures without points."""
        figures = dict(self.watts_per_pflops)
        peak = chip.peak_flops.get("bf16") or chip.peak_flops.get("fp16")
        if chip.architecture not in figures or peak is None:
            return 1.0
        demand_w = figures[chip.architecture] * peak.value / 1e15
        return float(max(1.0, demand_w / chip.tdp_w.value) ** self.exponent)


@cache
def sustained() -> Sustained:
    """The shipped constants."""
    text = files("windtunnel.planner").joinpath("parameters/training.toml").read_text("utf-8")
    table = tomllib.loads(text)
    return Sustained(
        table["exponent"],
        tuple(table["watts_per_pflops"].items()),
        tuple(table["host_factors"].items()),
        table["interval"]["low"],
        table["interval"]["high"],
    )
