"""Pipelined transfer: the one law that every algorithm here is built from.

A message cut into chunks over ``fill`` seconds of start-up and ``wire`` seconds of payload costs
``fill + wire`` plus the chunks in flight; with the best chunk size the total is
``(sqrt(fill) + sqrt(wire))**2``. Libraries choose their chunk sizes close to that, so effective bandwidth
rises slowly with size, as measured curves do. With the low-latency protocols (LL, LL128) flags travel with
the data and nothing is chunked: ``fill + wire``, at a lower share of the link.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Transfer(NamedTuple):
    """One collective on one tier of links.

    Attributes:
        wire_s: how much of ``seconds`` its payload fills the links at the best rate they reach; the rest is
            latency, in which others may use them. algorithm: as the library would call it.
    """

    seconds: float
    wire_s: float
    algorithm: str

    @property
    def busy(self) -> float:
        """Share of the links' capacity that the collective asks for while it runs."""
        return min(1.0, self.wire_s / self.seconds) if self.seconds > 0 else 0.0


def pipelined_s(fill_s: float, wire_s: float) -> float:
    """Seconds of a chunked transfer with the best chunk size."""
    return (math.sqrt(fill_s) + math.sqrt(wire_s)) ** 2


def flagged_s(fill_s: float, wire_s: float) -> float:
    """Seconds of a transfer whose flags travel with the data."""
    return fill_s + wire_s
