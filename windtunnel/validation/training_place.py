"""Where the job of a training row runs: the cluster of its cards."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.specs.cluster import Cluster
from windtunnel.specs.targets import cluster_of

SPARE_OF = 72
TAKEN_OF = 64
"""A rack of 72 joined cards gives a job of several racks 64 of them, so that groups that are powers of two stay inside
(Megatron Bridge's performance guide, "Parallel mapping strategies with NVL72")."""


def cluster_for(chip: str, cards: int) -> Cluster:
    """``cards`` of ``chip`` as schedulers hand them to training jobs. Raises E101 and E220."""
    cluster = cluster_of(chip, cards)
    several = cluster.node.cards == SPARE_OF and cards > SPARE_OF and cards % TAKEN_OF == 0
    return replace(cluster, node=replace(cluster.node, cards=TAKEN_OF)) if several else cluster
