"""What ``--on`` means: ``mtt-s5000``, ``mtt-s5000:64,h100-sxm``, ``kuae-10240`` or ``my-cluster.toml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip as chip_called
from windtunnel.specs.catalogue import chip_names
from windtunnel.specs.cluster import Cluster, Fabric, Node
from windtunnel.specs.cluster_files import ClusterFile, all_in, read_cluster
from windtunnel.specs.schema import Chip, Provenance, ScaleUp, Trust
from windtunnel.specs.table import did_you_mean

CLUSTERS = Path(__file__).parent / "clusters"
CARDS_MAX = 1_000_000
PLAIN = "pcie-box"
"""The cluster whose fabric, a full fat tree, is taken for chips that no file names."""


def cluster_names() -> list[str]:
    """The shipped clusters, in alphabetical order."""
    return sorted(file.stem for file in CLUSTERS.glob("*.toml"))


def cluster_of(chip: str | Chip, cards: int = 1) -> Cluster:
    """``cards`` cards of ``chip`` in the kind of node that chip is sold in.

    Raises:
        WindtunnelError: E101, no such chip; E220, the number of cards is not sensible.
    """
    card = chip if isinstance(chip, Chip) else chip_called(chip)
    _check_cards(cards, card.name)
    title = f"{cards:,} × {card.title}"
    for preset in _presets():
        if card.name in preset.chips:
            return replace(preset.cluster(card, cards), name=f"{card.name}:{cards}", title=title)
    return Cluster(
        name=f"{card.name}:{cards}", title=title, node=_plain_node(card), cards=cards, fabric=_plain_fabric()
    )


def for_world(cluster: Cluster, world_size: int) -> Cluster:
    """The cluster for a recording of ``world_size`` ranks; a chip alone is taken as often as that needs.

    Raises:
        WindtunnelError: E238, the cluster has another number of cards.
    """
    if cluster.cards == world_size:
        return cluster
    if cluster.cards == 1:
        return cluster_of(cluster.chip, world_size)
    raise WindtunnelError(
        "E238",
        f"the recording is of {world_size} ranks, and `{cluster.name}` has {cluster.cards} cards",
        hint=f"price it on {world_size} cards, or record the script again for {cluster.cards}",
        values={"recorded world size": world_size, "cards": cluster.cards},
    )


def parse_target(
    text: str, overrides: Sequence[str] = (), folders: Sequence[Path] = ()
) -> tuple[Cluster, ...]:
    """The clusters that a comma-separated ``--on`` names, in its order; a chip alone is one card.

    Args:
        overrides, folders: as ``catalogue.chip`` takes them.

    Raises:
        WindtunnelError: E220, a part cannot be read; E101, neither a chip nor a cluster has the name; E102
            to E109, a file or override is not sound.
    """
    parts = [part.strip() for part in text.split(",")]
    return tuple(_parse_one(part, text, overrides, folders) for part in parts)


def _parse_one(part: str, text: str, overrides: Sequence[str], folders: Sequence[Path]) -> Cluster:
    name, colon, count = part.partition(":")
    name = name.strip()
    if not name or (colon and not count.strip()):
        raise _unreadable(text, part)
    cards = _cards(count, text, part) if colon else None
    if name.endswith(".toml"):
        file = read_cluster(Path(name))
    else:
        found = [preset for preset in _presets() if preset.name == name.lower()]
        if not found:
            return _of_chip(name, cards or 1, overrides, folders)
        file = found[0]
    return file.cluster(chip_called(file.chips[0], overrides, folders), cards)


def _of_chip(name: str, cards: int, overrides: Sequence[str], folders: Sequence[Path]) -> Cluster:
    try:
        return cluster_of(chip_called(name, overrides, folders), cards)
    except WindtunnelError as error:
        if error.code != "E101":
            raise
        known = [*chip_names(folders), *cluster_names()]
        raise WindtunnelError(
            "E101",
            f"no chip or cluster is called `{name}`",
            hint=f"{did_you_mean(name, known)}list the chips: windtunnel chips",
            values={"known": ", ".join(known)},
        ) from None


def _cards(count: str, text: str, part: str) -> int:
    digits = count.strip().replace("_", "")
    if not (digits.isascii() and digits.isdigit()):
        raise _unreadable(text, part)
    cards = int(digits[:12])
    _check_cards(cards, part)
    return cards


def _check_cards(cards: int, name: str) -> None:
    if not 1 <= cards <= CARDS_MAX:
        raise WindtunnelError(
            "E220",
            f"`{name}` asks for {cards:,} cards",
            hint=f"ask for 1 to {CARDS_MAX:,} cards, as mtt-s5000:64",
        )


def _unreadable(text: str, part: str) -> WindtunnelError:
    return WindtunnelError(
        "E220",
        f"cannot read `{part}` in `{text}`" if part != text else f"cannot read the target `{text}`",
        hint="name chips and cards, as --on mtt-s5000:64 or --on mtt-s5000:8,h100-sxm:8, or a cluster file",
    )


def _plain_node(card: Chip) -> Node:
    """The node of a chip that no cluster file knows: as many cards and links as the chip states."""
    mesh = card.scale_up is ScaleUp.MESH
    return Node(
        chip=card,
        cards=card.cards_per_node,
        scale_up=card.scale_up,
        link_bytes_per_s=card.link_bytes_per_s,
        links_per_pair=card.links // max(1, card.cards_per_node - 1) if mesh else 0,
        effective_pair_bytes_per_s=None,
        nics=card.cards_per_node,
        nic_bytes_per_s=card.nic_bytes_per_s,
        host="not stated",
        provenance=Provenance(
            source=f"chip.toml of {card.name}",
            date="2026",
            trust=Trust.ASSUMED,
            note="no cluster file names this chip; one network port a card is taken",
        ),
    )


def _plain_fabric() -> Fabric:
    return next(preset for preset in _presets() if preset.name == PLAIN).fabric()


@cache
def _presets() -> tuple[ClusterFile, ...]:
    return all_in(CLUSTERS)
