"""The cards at the head of a page: one figure each, with its interval and a note."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel import units
from windtunnel.estimate import Estimate

EXACT = 1.001
"""An interval narrower than this factor is not shown."""


@dataclass(frozen=True, slots=True)
class Card:
    """One figure of the answer."""

    label: str
    number: str
    unit: str
    interval: str
    note: str


def card(label: str, value: Estimate, note: str, unit: str = "/s") -> Card:
    """An estimate as a card."""
    exact = value.high <= value.low * EXACT
    interval = "" if exact else f"{units.significant(value.low)} – {units.significant(value.high)}"
    return Card(label, units.significant(value.value), unit, interval, note)
