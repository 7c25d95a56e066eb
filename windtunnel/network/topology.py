"""Where the ranks of a group sit: how many nodes, how many in each, and how far apart.

Ranks fill nodes in order, as torchrun numbers them: rank // cards_per_node is the node.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError


@dataclass(frozen=True, slots=True)
class GroupShape:
    """A communicator by its place in the cluster.

    Attributes:
        ranks: size of the group. nodes: how many nodes hold one of them.
        per_node: fewest ranks of the group in one of those nodes; its NICs carry the group.
        pods: how many leaf domains (pods of the fat tree) the nodes belong to.
        sockets: over how many host processors of a node its ranks are spread, where cards hang on those.
    """

    ranks: int
    nodes: int
    per_node: int
    pods: int = 1
    sockets: int = 1


def shape_of(
    ranks: tuple[int, ...],
    cards_per_node: int,
    nodes_per_pod: int,
    cards: int,
    cards_per_socket: int = 1 << 30,
) -> GroupShape:
    """The shape of the group. Raises E201 for a rank that the cluster does not have or that repeats."""
    if not ranks or min(ranks) < 0 or max(ranks) >= cards or len(set(ranks)) != len(ranks):
        outside = sorted({rank for rank in ranks if not 0 <= rank < cards})
        raise WindtunnelError(
            "E201",
            "a group has ranks that the cluster does not have, or the same rank twice",
            hint=f"use distinct ranks from 0 to {cards - 1}",
            values={"ranks": ranks[:16], "outside": outside[:16], "cards": cards},
        )
    nodes = Counter(rank // cards_per_node for rank in ranks)
    pods = {node // nodes_per_pod for node in nodes}
    sockets = {rank % cards_per_node // cards_per_socket for rank in ranks}
    return GroupShape(len(ranks), len(nodes), min(nodes.values()), len(pods), len(sockets))
