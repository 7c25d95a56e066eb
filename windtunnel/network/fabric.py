"""Collectives over several nodes: NIC per card, rail-optimised fat tree with oversubscription.

Ring: NCCL builds one ring per NIC; each crosses every node boundary once, so all NICs of a node carry the
traffic of its ranks in parallel. Tree: latency grows with the logarithm of the nodes, at the price of the
same bytes. All-to-all: each rank's traffic for other nodes leaves through its own NIC.
Not here: what happens inside the nodes (``switch.py``, ``mesh.py``); the slower of the two parts rules.
"""

from __future__ import annotations

import math

from windtunnel.network.collective import ONE_PAIR, Collective, bus_factor
from windtunnel.network.parameters import FabricParameters
from windtunnel.network.topology import GroupShape
from windtunnel.network.transfer import Transfer, pipelined_s


def fabric_s(
    kind: Collective,
    message_bytes: float,
    shape: GroupShape,
    nic_bytes_per_s: float,
    parameters: FabricParameters,
) -> Transfer:
    """The part between nodes; ``nic_bytes_per_s`` after oversubscription."""
    if kind in ONE_PAIR:
        wire = message_bytes / (nic_bytes_per_s * parameters.send.efficiency)
        return Transfer(parameters.launch_s + pipelined_s(parameters.send.hop_s, wire), wire, "NIC")
    if kind is Collective.ALL_TO_ALL:
        away = (shape.ranks - shape.per_node) / shape.ranks
        wire = away * message_bytes / (nic_bytes_per_s * parameters.exchange_efficiency)
        return Transfer(parameters.launch_s + pipelined_s(parameters.hop_s, wire), wire, "pairwise")
    per_nic = message_bytes / shape.per_node
    wire = bus_factor(kind, shape.ranks) * per_nic / (nic_bytes_per_s * parameters.ring_efficiency)
    rounds = 2 if kind is Collective.ALL_REDUCE else 1
    ring = pipelined_s(rounds * (shape.nodes - 1) * parameters.hop_s, wire)
    if kind not in (Collective.ALL_REDUCE, Collective.BROADCAST, Collective.REDUCE):
        return Transfer(parameters.launch_s + ring, wire, "ring")
    tree = pipelined_s(rounds * math.ceil(math.log2(shape.nodes)) * parameters.hop_s, wire)
    name = "ring" if ring <= tree else "tree"
    return Transfer(parameters.launch_s + min(ring, tree), wire, name)
