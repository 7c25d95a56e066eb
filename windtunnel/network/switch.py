"""Collectives inside one node whose cards meet in a crossbar (NVLink switch), and between pairs.

NCCL runs a ring in the low-latency or the Simple protocol, whichever is faster for the size; on Hopper and
later an all-reduce over six or more cards may also be reduced in the switch (NVLS). Model of the ring:
every rank sends ``f S`` over its link (``f = (N-1)/N``, twice that for all-reduce) and handles its own
``S/N`` locally. Not here: several nodes (``fabric.py``), MoE dispatch (``expert.py``).
"""

from __future__ import annotations

from windtunnel.network.collective import ONE_PAIR, Collective, bus_factor
from windtunnel.network.parameters import Regime, RingParameters, SwitchParameters
from windtunnel.network.transfer import Transfer, flagged_s, pipelined_s

IN_SWITCH_MIN_RANKS = 6
"""NCCL 2.27's tables: below six cards the ring wins (measured with NVLS on and off on eight B200)."""

_RING_OF = {
    Collective.ALL_REDUCE: "all_reduce",
    Collective.ALL_GATHER: "all_gather",
    Collective.REDUCE_SCATTER: "reduce_scatter",
    Collective.ALL_TO_ALL: "all_to_all",
    Collective.GATHER: "all_to_all",
    Collective.SCATTER: "all_to_all",
    Collective.BROADCAST: "all_gather",
    Collective.REDUCE: "reduce_scatter",
    Collective.SEND: "send",
    Collective.RECV: "send",
    Collective.COPY: "send",
}


def _hops(kind: Collective, ranks: int) -> int:
    if kind is Collective.ALL_REDUCE:
        return 2 * (ranks - 1)
    if kind in ONE_PAIR or kind in (Collective.ALL_TO_ALL, Collective.GATHER, Collective.SCATTER):
        return 1
    return ranks - 1


def _wire_s(kind: Collective, message_bytes: float, ranks: int, rate: float, local_rate: float) -> float:
    local = 0.0 if kind in ONE_PAIR else message_bytes / ranks / local_rate
    return bus_factor(kind, ranks) * message_bytes / rate + local


def ring_s(
    kind: Collective,
    message_bytes: float,
    ranks: int,
    link_bytes_per_s: float,
    launch_s: float,
    parameters: RingParameters,
) -> Transfer:
    """A ring or pairwise exchange over a crossbar."""
    hops = _hops(kind, ranks)
    local = link_bytes_per_s * parameters.local_efficiency
    slow, fast = parameters.low_latency, parameters.simple
    wire_s = _wire_s(kind, message_bytes, ranks, link_bytes_per_s * fast.efficiency, local)
    low = flagged_s(
        hops * slow.hop_s, _wire_s(kind, message_bytes, ranks, link_bytes_per_s * slow.efficiency, local)
    )
    simple = pipelined_s(hops * fast.hop_s, wire_s)
    name = "ring LL" if low <= simple else "ring Simple"
    return Transfer(launch_s + min(low, simple), wire_s, name)


def in_switch_s(message_bytes: float, link_bytes_per_s: float, launch_s: float, regime: Regime) -> Transfer:
    """An all-reduce done by the switch: each rank sends and receives its message once."""
    wire_s = message_bytes / (link_bytes_per_s * regime.efficiency)
    return Transfer(launch_s + pipelined_s(regime.hop_s, wire_s), wire_s, "NVLS")


def custom_limit_bytes(generation: int) -> int:
    """Beyond this, engines call the library: 8 MiB on Ampere, 16 MiB since Hopper.

    ``generation`` as ``switch_s`` takes it. The step is seen in the calibration tables (SGLang and vLLM on A100 and
    H100); newer vLLM goes on to 32 or 64 MiB at nearly the library's rate.
    """
    return (16 << 20) if generation else (8 << 20)


def custom_all_reduce_s(
    message_bytes: float, ranks: int, link_bytes_per_s: float, parameters: SwitchParameters
) -> Transfer:
    """The inference engines' own all-reduce: one shot (read all peers) or two (scatter, gather)."""
    one, two = parameters.custom_one_shot, parameters.custom_two_shot
    read_all_s = (ranks - 1) * message_bytes / (link_bytes_per_s * one.efficiency)
    halves_s = 2 * (ranks - 1) / ranks * message_bytes / (link_bytes_per_s * two.efficiency)
    launch_s = parameters.custom_launch_s
    return min(
        Transfer(launch_s + one.hop_s + read_all_s, read_all_s, "one-shot"),
        Transfer(launch_s + two.hop_s + halves_s, halves_s, "two-shot"),
    )


def switch_s(
    kind: Collective,
    message_bytes: float,
    ranks: int,
    link_bytes_per_s: float,
    chip: str,
    generation: int,
    parameters: SwitchParameters,
) -> Transfer:
    """``kind`` over ``ranks`` cards of one crossbar.

    ``generation``: of switches that reduce (9 Hopper, 10 Blackwell); 0 where they cannot.
    """
    launch_s = parameters.launch_s.get(chip, parameters.default_launch_s)
    ring = parameters.rings[_RING_OF[kind]]
    best = ring_s(kind, message_bytes, ranks, link_bytes_per_s, launch_s, ring)
    if kind is Collective.ALL_REDUCE and generation and ranks >= IN_SWITCH_MIN_RANKS:
        regime = parameters.in_switch[min(generation, max(parameters.in_switch))]
        best = min(best, in_switch_s(message_bytes, link_bytes_per_s, launch_s, regime))
    return best
