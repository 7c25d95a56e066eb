"""Collectives in a node without scale-up fabric: a ring through PCIe and the root complex."""

from __future__ import annotations

from windtunnel.network.collective import POINT_TO_POINT, Collective, bus_factor
from windtunnel.network.parameters import PcieParameters
from windtunnel.network.transfer import Transfer, pipelined_s


def pcie_s(
    kind: Collective, message_bytes: float, ranks: int, pcie_bytes_per_s: float, parameters: PcieParameters
) -> Transfer:
    """A collective; ``pcie_bytes_per_s`` is one direction of one card's slot."""
    rounds = 2 if kind is Collective.ALL_REDUCE else 1
    hops = 1 if kind in POINT_TO_POINT else rounds * (ranks - 1)
    efficiency = parameters.efficiency
    if ranks > parameters.cards_per_socket:
        across_exchange = kind is Collective.ALL_TO_ALL
        efficiency = (
            parameters.exchange_across_sockets if across_exchange else parameters.efficiency_across_sockets
        )
    wire = bus_factor(kind, ranks) * message_bytes / (pcie_bytes_per_s * efficiency)
    seconds = parameters.launch_s + pipelined_s(hops * parameters.hop_s, wire)
    return Transfer(seconds, wire, "ring over PCIe")
