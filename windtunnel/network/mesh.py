"""Collectives inside a node without a switch, every pair of cards joined by its own links (MTT S5000).

Direct algorithm: each rank sends its share to every peer at once, so a group of N uses N-1 of the card's
pairs and bus bandwidth is ``(N-1) r`` with ``r`` the rate of one pair. Measured on eight S5000 with MCCL
(1 GiB all-reduce, 2/4/8 cards): 31.4, 100.4 and 234.3 GB/s. Hence a group of two is slow, and groups
inside one node share no link.

How long MCCL takes for a small message was never published. SimuMax's template for the S5000 has 35 us for each step,
and a direct all-reduce has two (send shares, send sums). The two measured sizes of the all-reduce bound it from above:
256 MiB at 211.9 and 1 GiB at 234.3 GB/s lie on a line that starts at 283 us, and large messages of NCCL start with
4 to 5 times what its small ones take (eight A100: 110 and 23 us), which gives 60 to 70 again.
"""

from __future__ import annotations

from windtunnel.network.collective import ONE_PAIR, Collective
from windtunnel.network.parameters import MeshParameters
from windtunnel.network.transfer import Transfer, pipelined_s


def mesh_s(
    kind: Collective, message_bytes: float, ranks: int, pair_bytes_per_s: float, parameters: MeshParameters
) -> Transfer:
    """A collective over ``ranks`` cards; ``pair_bytes_per_s`` is one direction of one pair."""
    if kind in ONE_PAIR:
        wire = message_bytes / (pair_bytes_per_s * parameters.copy_efficiency)
        # a library's send starts as its collectives do, a copy of the driver's as any copy
        launch = parameters.copy_launch_s if kind is Collective.COPY else parameters.launch_s
        return Transfer(launch + wire, wire, "pair copy")
    rate = pair_bytes_per_s * parameters.pair_efficiency
    rounds = 2 if kind is Collective.ALL_REDUCE else 1
    per_pair = message_bytes / ranks
    if kind in (Collective.BROADCAST, Collective.REDUCE):
        # scatter then gather, or the reverse, through all pairs
        rounds, rate = 2, rate * parameters.rooted_factor
    wire_s = rounds * per_pair / rate
    start_s = rounds * parameters.launch_s
    return Transfer(start_s + pipelined_s(parameters.fill_s, wire_s), wire_s, "direct mesh")
