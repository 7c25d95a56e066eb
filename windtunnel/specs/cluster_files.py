"""A cluster's file, ``clusters/<name>.toml`` or a user's own: read and checked.

What this is not: the reading of chips (``files.py``) or of ``--on`` (``targets.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from windtunnel.specs.cluster import Cluster, Fabric, FabricKind, Node
from windtunnel.specs.schema import Chip, ScaleUp, Trust
from windtunnel.specs.table import PROVENANCE_KEYS, Table, read_toml

_KEYS = ("title", "chips", "cards", "node", "fabric")
_NODE = (
    "cards",
    "links_per_pair",
    "effective_pair_bytes_per_s",
    "nics",
    "host",
    "link_bytes_per_s",
    "nic_bytes_per_s",
    *PROVENANCE_KEYS,
)
_FABRIC = ("kind", "oversubscription", "nodes_per_leaf", "hop_s")


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """A file before a chip and a number of cards are chosen. The first chip is the default one."""

    name: str
    chips: tuple[str, ...]
    cards: int
    table: Table

    def cluster(self, chip: Chip, cards: int | None = None) -> Cluster:
        """The cluster with ``cards`` cards of ``chip``; all the cards of the file when None.

        Raises:
            WindtunnelError: E103 to E106, the file is not sound.
        """
        return Cluster(
            name=self.name,
            title=self.table.text("title"),
            node=_node(self.table.table("node"), chip),
            cards=self.cards if cards is None else cards,
            fabric=self.fabric(),
        )

    def fabric(self) -> Fabric:
        """The network between nodes."""
        return _fabric(self.table.table("fabric"))


def read_cluster(file: Path) -> ClusterFile:
    """The file's head: its name, chips and size.

    Raises:
        WindtunnelError: E102 to E106, naming the file and the path inside it.
    """
    table = read_toml(file)
    table.only(_KEYS)
    chips = table.texts("chips")
    if not chips:
        raise table.wrong("chips", [], "a list with at least one chip")
    return ClusterFile(file.stem, chips, table.integer("cards"), table)


def all_in(folder: Path, read: Callable[[Path], ClusterFile] = read_cluster) -> tuple[ClusterFile, ...]:
    """Every cluster file of a folder, by name."""
    return tuple(read(file) for file in sorted(folder.glob("*.toml")))


def _node(table: Table, chip: Chip) -> Node:
    """Rates are the chip's unless the file states others."""
    table.only(_NODE)
    mesh = chip.scale_up is ScaleUp.MESH
    pair = "effective_pair_bytes_per_s"
    link, nic = "link_bytes_per_s", "nic_bytes_per_s"
    links = table.integer("links_per_pair") if mesh else table.integer("links_per_pair", 0, least=0)
    per_card = table.quantity(link, "B/s") if table.has(link) else chip.link_bytes_per_s
    reached = table.quantity(pair, "B/s") if table.has(pair) else None
    # the card's links are shared out over the other cards
    share = per_card.value / max(1, table.integer("cards", chip.cards_per_node) - 1)
    if mesh and reached is not None and reached.value > share:
        if table.has(link) or per_card.trust is not Trust.ASSUMED:
            limit = f"at most {share:g}, the share of one pair in the {per_card.value:g} B/s of a card"
            raise table.out_of_range(f"{pair}.value", reached.value, limit)
        reached = replace(reached, value=share)  # what if the card's links were slower: their pairs are, too
    return Node(
        chip=chip,
        cards=table.integer("cards", chip.cards_per_node),
        scale_up=chip.scale_up,
        link_bytes_per_s=per_card,
        links_per_pair=links,
        effective_pair_bytes_per_s=reached,
        nics=table.integer("nics"),
        nic_bytes_per_s=table.quantity(nic, "B/s") if table.has(nic) else chip.nic_bytes_per_s,
        host=table.text("host"),
        provenance=table.provenance(),
    )


def _fabric(table: Table) -> Fabric:
    table.only(_FABRIC)
    oversubscription = table.quantity("oversubscription", "1")
    if oversubscription.value < 1:
        raise table.out_of_range("oversubscription.value", oversubscription.value, "1 or more")
    leaf = table.quantity("nodes_per_leaf", "1")
    if leaf.value != int(leaf.value):
        raise table.out_of_range("nodes_per_leaf.value", leaf.value, "a whole number")
    return Fabric(
        kind=table.choice("kind", FabricKind),
        oversubscription=oversubscription,
        nodes_per_leaf=leaf,
        hop_s=table.quantity("hop_s", "s"),
    )
