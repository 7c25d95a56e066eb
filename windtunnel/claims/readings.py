"""Readings that do not come from the card's maker: what others measured, and the peak that it implies.

A peak is not reached by anything, so a measurement below it neither confirms nor contradicts it. What can be said:
on chips whose peaks are known, the same kind of work gets a known part of the peak; if it gets the same part here,
the peak is

    measured on the S5000 ÷ (measured ÷ data sheet, on other chips)

with the smallest and the largest part as the ends of the interval, and their geometric mean in the middle.
"""

from __future__ import annotations

import csv
import importlib.resources
import math
from dataclasses import dataclass
from functools import cache

from windtunnel.estimate import Estimate, Source

FILE = "measured.csv"


@dataclass(frozen=True, slots=True)
class Reading:
    """One published measurement. ``of_peak``: its part of the data sheet's peak, of chips whose peak is known."""

    name: str
    what: str
    value: float
    unit: str
    of_peak: float | None
    source: str

    @property
    def words(self) -> str:
        """The reading as one line."""
        part = "" if self.of_peak is None else f", {self.of_peak:.0%} of its peak"
        return f"{self.what}: {self.value:,.4g} {self.unit}{part} ({self.source})"

    @property
    def estimate(self) -> Estimate:
        """The measured value."""
        return Estimate.exact(self.value, Source.MEASURED)


@cache
def readings() -> dict[str, Reading]:
    """All readings by name."""
    text = (
        importlib.resources.files("windtunnel.claims").joinpath("evidence").joinpath(FILE).read_text("utf-8")
    )
    return {
        row["name"]: Reading(
            row["name"],
            row["what"],
            float(row["value"]),
            row["unit"],
            float(row["of_peak"]) if row["of_peak"] else None,
            row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def implied_peak(measured: Reading, others: tuple[str, ...], factor: float = 1.0) -> Estimate:
    """The peak that ``measured`` implies if this chip gets the part of its peak that ``others`` get of theirs.

    ``factor`` turns the reading into what the claim counts (both directions, several links).
    """
    parts = [part for name in others if (part := readings()[name].of_peak) is not None]
    value = measured.value * factor
    middle = math.exp(sum(math.log(part) for part in parts) / len(parts))
    return Estimate(value / middle, value / max(parts), value / min(parts), ((Source.MEASURED, 1.0),))
