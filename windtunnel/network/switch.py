"""Collectives inside one node whose cards meet in a crossbar (NVLink switch), and between pairs.

NCCL runs a ring in one of three protocols, or lets the switch reduce (NVLS: all-reduce over six or more cards on Hopper
and later); which, its own tuning model says (``nccl.py``). In a ring every rank sends ``f S`` over its link
(``f = (N-1)/N``, twice that for all-reduce) one step after another and handles its own ``S/N`` locally. Exchanges
(all-to-all, send) take the faster of two regimes.
Not here: several nodes (``fabric.py``), MoE dispatch (``expert.py``), the engines' own all-reduce (``engine.py``).
"""

from __future__ import annotations

from itertools import pairwise

from windtunnel.network.collective import ONE_PAIR, Collective, bus_factor
from windtunnel.network.engine import by_generation
from windtunnel.network.nccl import Way, ring_hops, ways
from windtunnel.network.parameters import PairParameters, Regime, SwitchParameters
from windtunnel.network.transfer import Transfer, flagged_s, pipelined_s

_RINGS = (
    Collective.ALL_REDUCE,
    Collective.ALL_GATHER,
    Collective.REDUCE_SCATTER,
    Collective.BROADCAST,
    Collective.REDUCE,
)


def _wire_s(kind: Collective, message_bytes: float, ranks: int, rate: float, local_rate: float) -> float:
    local = 0.0 if kind in ONE_PAIR else message_bytes / ranks / local_rate
    return bus_factor(kind, ranks) * message_bytes / rate + local


def exchange_s(
    kind: Collective,
    message_bytes: float,
    ranks: int,
    link_bytes_per_s: float,
    launch_s: float,
    parameters: PairParameters,
) -> Transfer:
    """Pairwise exchange over a crossbar: one hop, flags with the data or chunks."""
    local = link_bytes_per_s * parameters.local_efficiency
    slow, fast = parameters.low_latency, parameters.simple
    wire_s = _wire_s(kind, message_bytes, ranks, link_bytes_per_s * fast.efficiency, local)
    slow_s = _wire_s(kind, message_bytes, ranks, link_bytes_per_s * slow.efficiency, local)
    low = flagged_s(slow.hop_s, slow_s)
    simple = pipelined_s(fast.hop_s, wire_s)
    name = "pairs LL" if low <= simple else "pairs Simple"
    return Transfer(launch_s + min(low, simple), wire_s, name)


def in_switch_s(message_bytes: float, link_bytes_per_s: float, launch_s: float, regime: Regime) -> Transfer:
    """An all-reduce done by the switch: each rank sends and receives its message once."""
    wire_s = message_bytes / (link_bytes_per_s * regime.efficiency)
    return Transfer(launch_s + pipelined_s(regime.hop_s, wire_s), wire_s, Way.IN_SWITCH.value)


def _way_s(
    way: Way,
    kind: Collective,
    message_bytes: float,
    ranks: int,
    link_bytes_per_s: float,
    capability: int,
    parameters: SwitchParameters,
) -> Transfer:
    launch_s = by_generation(parameters.launch_s, capability, parameters.latency)
    if way is Way.IN_SWITCH:
        regime = parameters.in_switch[min(capability, max(parameters.in_switch))]
        return in_switch_s(message_bytes, link_bytes_per_s, launch_s, regime)
    protocol = parameters.protocols[way]
    reduces = kind in (Collective.ALL_REDUCE, Collective.REDUCE)
    share = protocol.reduce_efficiency if reduces else protocol.gather_efficiency
    local = link_bytes_per_s * parameters.local_efficiency
    wire_s = _wire_s(kind, message_bytes, ranks, link_bytes_per_s * share, local)
    wait_s = protocol.start_s + ring_hops(kind, ranks) * protocol.hop_s
    seconds = launch_s + by_generation(parameters.latency, capability) * wait_s + wire_s
    return Transfer(seconds, wire_s, way.value)


def switch_s(
    kind: Collective,
    message_bytes: float,
    ranks: int,
    link_bytes_per_s: float,
    capability: int,
    in_switch: bool,
    parameters: SwitchParameters,
) -> Transfer:
    """``kind`` over ``ranks`` cards of one crossbar.

    ``capability``: major compute capability of the cards. ``in_switch``: whether the switches may reduce.
    """
    if kind not in _RINGS:
        launch_s = by_generation(parameters.launch_s, capability, parameters.latency)
        pairs = parameters.send if kind in ONE_PAIR else parameters.exchange
        return exchange_s(kind, message_bytes, ranks, link_bytes_per_s, launch_s, pairs)
    taken = ways(kind, ranks, link_bytes_per_s, capability, True, in_switch)

    def at(way: Way, size: float) -> Transfer:
        return _way_s(way, kind, size, ranks, link_bytes_per_s, capability, parameters)

    chosen = at([way for way, since in taken if message_bytes >= since][-1], message_bytes)
    # a step down where NCCL went over too late is not followed: more bytes are never faster here
    before = [at(way, until).seconds for (way, _), (_, until) in pairwise(taken) if until <= message_bytes]
    return chosen._replace(seconds=max([chosen.seconds, *before]))
