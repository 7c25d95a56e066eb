"""Collectives inside a node without a switch, every pair of cards joined by its own links (MTT S5000).

Direct algorithm: each rank sends its share to every peer at once, so a group of N uses N-1 of the card's
pairs and bus bandwidth is ``(N-1) r`` with ``r`` the rate of one pair. Measured on eight S5000 with MCCL
(1 GiB all-reduce, 2/4/8 cards): 31.4, 100.4 and 234.3 GB/s. Hence a group of two is slow, and groups
inside one node share no link.
"""

from __future__ import annotations

from windtunnel.network.collective import POINT_TO_POINT, Collective
from windtunnel.network.parameters import MeshParameters
from windtunnel.network.transfer import Transfer, flagged_s, pipelined_s


def mesh_s(
    kind: Collective, message_bytes: float, ranks: int, pair_bytes_per_s: float, parameters: MeshParameters
) -> Transfer:
    """A collective over ``ranks`` cards; ``pair_bytes_per_s`` is one direction of one pair.

    Small messages skip the chunked pipeline (``small_launch_s``), as libraries' low-latency paths do.
    """
    if kind in POINT_TO_POINT:
        wire = message_bytes / (pair_bytes_per_s * parameters.copy_efficiency)
        return _best(wire, parameters, "pair copy")
    rate = pair_bytes_per_s * parameters.pair_efficiency
    rounds = 2 if kind is Collective.ALL_REDUCE else 1
    per_pair = message_bytes / ranks
    if kind in (Collective.BROADCAST, Collective.REDUCE):
        # scatter then gather, or the reverse, through all pairs
        return _best(2 * per_pair / (rate * parameters.rooted_factor), parameters, "direct mesh")
    return _best(rounds * per_pair / rate, parameters, "direct mesh")


def _best(wire_s: float, parameters: MeshParameters, algorithm: str) -> Transfer:
    chunked = parameters.launch_s + pipelined_s(parameters.fill_s, wire_s)
    # flags with the data halve the payload rate, as in NCCL's LL protocol
    flagged = parameters.small_launch_s + flagged_s(0.0, 2 * wire_s)
    return Transfer(min(chunked, flagged), wire_s, algorithm)
