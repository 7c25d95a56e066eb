"""Which way NCCL takes inside a node: it predicts every algorithm and protocol by a line in size and takes the least.

The constants are those of NCCL's own tuning model (``src/graph/tuning.cc`` and ``search.cc``, 2.27 to 2.30): start and
hop in microseconds, and the bandwidth it believes in. They are far from what a way then takes, and that is fitted
(``switch.py``, ``pcie.py``); but they decide, which is why measured curves have steps. Left out: trees (longer than the
ring at every size on one node with these constants), PAT, and collectives on registered buffers.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from windtunnel.network.collective import Collective, bus_factor

IN_SWITCH_MIN_RANKS = 6
"""NCCL 2.27's tables: below six cards the ring wins (measured with NVLS on and off on eight B200)."""

IN_SWITCH_CAPABILITY = 9
"""The third-generation NVSwitch, which came with Hopper, reduces in the switch (NVLink SHARP)."""

_RING_SHARE = 0.8
"""Of a card's links that NCCL counts on: 20 of 25 GB/s a link on Ampere, 20.6 on Hopper, 40.1 of 50 on Blackwell."""
_LL_SHARE, _LL128_SHARE = 0.5, 0.92
_LL_MOST = {8: 87.7e9, 9: 141e9, 10: 282e9}
"""Bytes a second that NCCL believes LL reaches on one node, by major compute capability."""
_IN_SWITCH_SHARE = {9: 0.85, 10: 0.74}
_IN_SWITCH_START_S = 25e-6


class Way(StrEnum):
    """Protocol of a ring, or a reduction done by the switch."""

    LL = "ring LL"
    LL128 = "ring LL128"
    SIMPLE = "ring Simple"
    IN_SWITCH = "NVLS"


RING_WAYS = (Way.LL, Way.LL128, Way.SIMPLE)


class _Line(NamedTuple):
    way: Way
    start_s: float
    s_per_byte: float


_START_S = {Way.LL: 6.6e-6, Way.LL128: 14e-6, Way.SIMPLE: 8.4e-6}
_NVLINK_HOP_S = {Way.LL: 0.6e-6, Way.LL128: 1.9e-6, Way.SIMPLE: 3.4e-6}
_PCIE_HOP_S = {Way.LL: 1.0e-6, Way.SIMPLE: 5.7e-6}  # flags of 128 bytes need NVLink


def ring_hops(kind: Collective, ranks: int) -> int:
    """Steps of a ring, one after another."""
    return (2 if kind is Collective.ALL_REDUCE else 1) * (ranks - 1)


@lru_cache(maxsize=4096)
def ways(
    kind: Collective, ranks: int, rate_bytes_per_s: float, capability: int, nvlink: bool, in_switch: bool
) -> tuple[tuple[Way, float], ...]:
    """The ways that NCCL takes as messages grow, each with the size in bytes from which it takes it.

    ``rate_bytes_per_s``: of one card's links, or of its slot. ``capability``: major compute capability.
    ``in_switch``: whether the switches of the node may reduce.
    """
    hops, factor = ring_hops(kind, ranks), bus_factor(kind, ranks)
    rate = rate_bytes_per_s * _RING_SHARE if nvlink else rate_bytes_per_s
    generation = min(max(capability, min(_LL_MOST)), max(_LL_MOST))
    rates = {
        Way.LL: min(rate * _LL_SHARE, _LL_MOST[generation]),
        Way.LL128: rate * _LL128_SHARE,
        Way.SIMPLE: rate,
    }
    hop_s = _NVLINK_HOP_S if nvlink else _PCIE_HOP_S
    lines = [_Line(way, _START_S[way] + hops * hop_s[way], factor / rates[way]) for way in hop_s]
    capable = in_switch and nvlink and capability >= IN_SWITCH_CAPABILITY
    if capable and kind is Collective.ALL_REDUCE and ranks >= IN_SWITCH_MIN_RANKS:
        share = _IN_SWITCH_SHARE[generation]
        lines.append(_Line(Way.IN_SWITCH, _IN_SWITCH_START_S, factor / (2 * share * rate)))
    return _lower_envelope(lines)


def _lower_envelope(lines: list[_Line]) -> tuple[tuple[Way, float], ...]:
    """From the least start on, always to the line that is crossed first."""
    now = min(lines, key=lambda line: (line.start_s, line.s_per_byte))
    found = [(now.way, 0.0)]
    while True:
        crossed = [
            ((line.start_s - now.start_s) / (now.s_per_byte - line.s_per_byte), line.s_per_byte, line)
            for line in lines
            if line.s_per_byte < now.s_per_byte
        ]
        if not crossed:
            return tuple(found)
        size, _, now = min(crossed, key=lambda item: item[:2])
        found.append((now.way, size))
