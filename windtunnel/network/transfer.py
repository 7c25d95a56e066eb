"""Pipelined transfer: the one law that every algorithm here is built from.

A message cut into chunks over ``fill`` seconds of start-up and ``wire`` seconds of payload costs
``fill + wire`` plus the chunks in flight; with the best chunk size the total is
``(sqrt(fill) + sqrt(wire))**2``. Libraries choose their chunk sizes close to that, so effective bandwidth
rises slowly with size, as measured curves do. With the low-latency protocols (LL, LL128) flags travel with
the data and nothing is chunked: ``fill + wire``, at a lower share of the link.
"""

from __future__ import annotations

import math


def pipelined_s(fill_s: float, wire_s: float) -> float:
    """Seconds of a chunked transfer with the best chunk size."""
    return (math.sqrt(fill_s) + math.sqrt(wire_s)) ** 2


def flagged_s(fill_s: float, wire_s: float) -> float:
    """Seconds of a transfer whose flags travel with the data."""
    return fill_s + wire_s
