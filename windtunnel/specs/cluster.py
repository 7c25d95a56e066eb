"""What a node and a cluster are: plain data that ``network`` turns into seconds.

Ranks fill nodes in order, as torchrun numbers them: ``rank // node.cards`` is the node.
Presets and files are read by ``cluster_files.py``; ``targets.py`` finds them by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from windtunnel.specs.schema import Chip, Provenance, Quantity, ScaleUp


class FabricKind(StrEnum):
    """How nodes are joined."""

    RAIL_FAT_TREE = "rail-optimised fat tree"  # card i of every node on the same leaf switches
    FAT_TREE = "fat tree"  # all cards of a node on one leaf switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The cards that share a scale-up domain: one server, or one rack of NVL72.

    Attributes:
        cards: in a full node.
        link_bytes_per_s: scale-up bandwidth of one card, one direction, all its links together; 0 on PCIe.
        links_per_pair: links between two cards of a mesh; 0 where a switch or PCIe joins them.
        effective_pair_bytes_per_s: measured rate of one pair of a mesh in collectives, one direction; None
            where nobody measured it.
        nics: network ports of the node for traffic between cards.
        nic_bytes_per_s: scale-out bandwidth of one card, one direction.
        provenance: of the counts.
    """

    chip: Chip
    cards: int
    scale_up: ScaleUp
    link_bytes_per_s: Quantity
    links_per_pair: int
    effective_pair_bytes_per_s: Quantity | None
    nics: int
    nic_bytes_per_s: Quantity
    host: str
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """The network between nodes.

    Attributes:
        oversubscription: bandwidth below the leaf switches ÷ above them; 1 is a full fat tree.
        nodes_per_leaf: nodes that meet without leaving their leaf switches (a pod, or scalable unit).
        hop_s: latency of one switch with its cable.
    """

    kind: FabricKind
    oversubscription: Quantity
    nodes_per_leaf: Quantity
    hop_s: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """``cards`` cards of one kind on nodes of one kind; the last node may be part-filled."""

    name: str
    title: str
    node: Node
    cards: int
    fabric: Fabric

    @property
    def chip(self) -> Chip:
        return self.node.chip

    @property
    def nodes(self) -> int:
        """How many nodes the cards need."""
        return -(-self.cards // self.node.cards)
