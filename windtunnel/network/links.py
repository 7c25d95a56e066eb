"""The few link figures that the algorithms need, taken from a cluster's data sheet."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.network.nccl import IN_SWITCH_CAPABILITY
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.schema import Chip, ScaleUp, Vendor


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Rates are bytes per second of one card, one direction.

    Attributes:
        link_bytes_per_s: all scale-up links of a card together; 0 without a scale-up fabric.
        reduces_in_switch: whether the library may let switches reduce (NCCL_NVLS_ENABLE).
        nodes_per_pod: nodes that meet below the oversubscribed tier. oversubscription: of that tier.
    """

    chip: Chip
    cards: int
    cards_per_node: int
    scale_up: ScaleUp
    link_bytes_per_s: float
    pcie_bytes_per_s: float
    nic_bytes_per_s: float
    nodes_per_pod: int = 1 << 30
    oversubscription: float = 1.0
    reduces_in_switch: bool = True

    def __post_init__(self) -> None:
        rates = {
            "pcie_bytes_per_s": self.pcie_bytes_per_s,
            "oversubscription": self.oversubscription,
            "cards": self.cards,
            "cards_per_node": self.cards_per_node,
        }
        if self.scale_up is not ScaleUp.PCIE:
            rates["link_bytes_per_s"] = self.link_bytes_per_s
        if self.cards > self.cards_per_node:
            rates["nic_bytes_per_s"] = self.nic_bytes_per_s
        bad = {name: value for name, value in rates.items() if not value > 0}
        if bad or self.oversubscription < 1:
            raise WindtunnelError(
                "E204",
                "the cluster has impossible links",
                hint="rates are bytes per second above zero, oversubscription is 1 or more",
                values=bad or {"oversubscription": self.oversubscription},
            )

    @classmethod
    def of_chip(cls, chip: Chip, cards: int) -> Links:
        """Nodes as the chip's own, one network card each, no oversubscription."""
        return cls(
            chip=chip,
            cards=cards,
            cards_per_node=chip.cards_per_node,
            scale_up=chip.scale_up,
            link_bytes_per_s=chip.link_bytes_per_s.value,
            pcie_bytes_per_s=chip.pcie_bytes_per_s.value,
            nic_bytes_per_s=chip.nic_bytes_per_s.value,
        )

    @classmethod
    def of(cls, cluster: Cluster) -> Links:
        """The figures of a cluster. Raises E204 where they cannot be."""
        node, fabric = cluster.node, cluster.fabric
        link_bytes_per_s = node.link_bytes_per_s.value
        if node.scale_up is ScaleUp.MESH:
            used = _links_used(cluster)
            link_bytes_per_s *= used / cluster.chip.links if used else 1.0
        return cls(
            chip=cluster.chip,
            cards=cluster.cards,
            cards_per_node=node.cards,
            scale_up=node.scale_up,
            link_bytes_per_s=link_bytes_per_s,
            pcie_bytes_per_s=cluster.chip.pcie_bytes_per_s.value,
            nic_bytes_per_s=node.nic_bytes_per_s.value,
            nodes_per_pod=max(1, int(fabric.nodes_per_leaf.value)),
            oversubscription=fabric.oversubscription.value,
        )

    @property
    def switches_reduce(self) -> bool:
        """Whether an all-reduce inside a node may be done by its switches."""
        capable = (
            self.chip.vendor is Vendor.NVIDIA and self.chip.compute_capability[0] >= IN_SWITCH_CAPABILITY
        )
        return self.reduces_in_switch and capable and self.scale_up is ScaleUp.SWITCH

    @property
    def pair_bytes_per_s(self) -> float:
        """One direction between two cards of a mesh: the card's links, spread over all its peers."""
        return self.link_bytes_per_s / max(1, self.cards_per_node - 1)


def _links_used(cluster: Cluster) -> int:
    """Links that a card of a mesh has to its node's other cards. Raises E204 for more than it has."""
    node, chip = cluster.node, cluster.chip
    used = node.links_per_pair * (node.cards - 1)
    if used > chip.links:
        raise WindtunnelError(
            "E204",
            "the cluster has impossible links: a mesh of its nodes needs more than the cards have",
            hint=f"{chip.links} links join a card to at most {chip.links // max(1, node.links_per_pair)} others with "
            f"{node.links_per_pair} each: fewer cards in a node, or fewer links_per_pair",
            values={
                "cards in a node": node.cards,
                "links_per_pair": node.links_per_pair,
                "links needed": used,
                "links of a card": chip.links,
            },
        )
    return used
