"""Collectives in a node without scale-up fabric: a ring through PCIe, the root complex and the link between sockets.

Cards of one host processor reach each other at most of a slot's rate. What goes to the other processor's cards shares
one path: a ring over both crosses it once in each direction, and so does every other such group of the node at the
same time; an exchange sends half of everything over it. Small messages take the low-latency protocol, which pays for
hops and not for chunks.
"""

from __future__ import annotations

from windtunnel.network.collective import ONE_PAIR, Collective, bus_factor
from windtunnel.network.parameters import PcieParameters
from windtunnel.network.topology import GroupShape
from windtunnel.network.transfer import Transfer, flagged_s, pipelined_s


def pcie_s(
    kind: Collective,
    message_bytes: float,
    shape: GroupShape,
    slot_bytes_per_s: float,
    cards_per_node: int,
    launch_s: float,
    parameters: PcieParameters,
) -> Transfer:
    """A collective of the group's ranks in one node; ``slot_bytes_per_s`` is one direction of one card's slot."""
    ranks = shape.per_node
    rounds = 2 if kind is Collective.ALL_REDUCE else 1
    hops = 1 if kind in ONE_PAIR else rounds * (ranks - 1)
    wire_s = bus_factor(kind, ranks) * message_bytes / (slot_bytes_per_s * parameters.efficiency)
    name = "ring over PCIe"
    if shape.sockets > 1 or ranks > parameters.cards_per_socket:
        crossing_s = _crossing_bytes(kind, message_bytes, ranks) * max(1, cards_per_node // ranks)
        crossing_s /= slot_bytes_per_s * parameters.crossing_efficiency
        if crossing_s > wire_s:
            wire_s, name = crossing_s, "ring over PCIe, between sockets"
    low = flagged_s(hops * parameters.low_latency_hop_s, 2 * wire_s)  # flags are half of what LL sends
    simple = pipelined_s(hops * parameters.hop_s, wire_s)
    return Transfer(launch_s + min(low, simple), wire_s, name)


def _crossing_bytes(kind: Collective, message_bytes: float, ranks: int) -> float:
    """What one group sends from one half of its cards to the other."""
    if kind is Collective.ALL_TO_ALL:
        return ranks / 2 * message_bytes / 2
    return bus_factor(kind, ranks) * message_bytes
