"""Which tiers a deployment has beyond its cards, by the engines' option names, and how fast they are.

Host memory is reached over each card's PCIe link (or what the chip has in its place), at the rate of the chip file.
Where ranks keep parts of a token's cache, host memory holds every part; a latent cache, which all tensor-parallel
ranks hold whole, is kept once. Storage is a node's: ranks share its rate evenly, and its contents with the ranks of
all replicas whose clocks run together (as a pooled store does). Its rate is the user's, else one NVMe drive's.
"""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.kv_tiers import KvTiers, Shelf, Tier, TierSpec
from windtunnel.serving.memory import CardMemory
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_mixers import Latent

DRIVE_BYTES_PER_S = 7e9
"""Assumed where none is given: one NVMe drive on PCIe 4.0 x4 (7.9 GB/s of link; data sheets say 6.8 to 7 reading)."""
STORAGE_LATENCY_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadOptions:
    """Slower tiers as they are asked for; nothing: the card alone.

    Attributes:
        kv_offloading_size_bytes: host memory of one engine, all its ranks together (vLLM's ``--kv-offloading-size``).
        hicache_ratio: host memory ÷ the card's cache; hicache_size_bytes: of one card, instead (SGLang).
        storage_bytes, storage_bytes_per_s: of one node.
    """

    kv_offloading_size_bytes: float = 0.0
    hicache_ratio: float = 0.0
    hicache_size_bytes: float = 0.0
    storage_bytes: float = 0.0
    storage_bytes_per_s: float = DRIVE_BYTES_PER_S

    @property
    def wanted(self) -> bool:
        """Whether there is anything beyond the card."""
        return any((self.kv_offloading_size_bytes, self.hicache_ratio, self.hicache_size_bytes))


class Offload:
    """The tiers of a deployment's ranks. ``states``: recurrent states that host memory holds for one."""

    def __init__(
        self,
        options: OffloadOptions,
        model: ModelSpec,
        memory: CardMemory,
        layout: ServingLayout,
        cluster: Cluster,
    ) -> None:
        latent = any(isinstance(layer.mixer, Latent) for layer in model.layers)
        whole = memory.token_bytes * (1 if latent else layout.tensor)
        cache, states = memory.cache_tokens * memory.token_bytes, memory.state_slots * memory.state_bytes
        ratio = (
            options.hicache_size_bytes / (cache + states) if cache else 0.0
        )  # of both alike, as SGLang divides it
        card = (options.hicache_ratio or ratio) * cache
        self.states = int((options.hicache_ratio or ratio) * memory.state_slots)
        tokens = int(card / memory.token_bytes) if card else int(options.kv_offloading_size_bytes / whole)
        link = cluster.chip.pcie_bytes_per_s.value
        self.page = memory.block_tokens
        self.host = TierSpec(
            name="host memory", capacity_tokens=tokens, token_bytes=memory.token_bytes, read_bytes_per_s=link,
            write_bytes_per_s=link,
        )  # fmt: skip
        self.storage: TierSpec | None = None
        if options.storage_bytes:
            nodes = -(-cluster.cards // cluster.node.cards)
            rate = options.storage_bytes_per_s * layout.tensor / min(cluster.cards, cluster.node.cards)
            self.storage = TierSpec(
                name="storage", capacity_tokens=int(options.storage_bytes * nodes / whole), token_bytes=whole,
                read_bytes_per_s=rate, write_bytes_per_s=rate, latency_s=STORAGE_LATENCY_S,
            )  # fmt: skip

    def shelf(self) -> Shelf | None:
        """Storage to be shared."""
        return Shelf(self.storage.capacity_tokens) if self.storage else None

    def rank(self, shelf: Shelf | None) -> KvTiers:
        """The tiers of one rank."""
        tiers = [Tier(self.host)]
        if self.storage is not None:
            tiers.append(Tier(self.storage, shelf))
        return KvTiers(tiers, self.page)
