"""What a chip, a node and a cluster are: facts with a unit, a source, a date and a trust level.

Everything here is plain data; ``specs/files.py`` reads it from TOML, ``specs/catalogue.py`` finds it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Trust(StrEnum):
    """How a fact became known, most trustworthy first."""

    VENDOR = "vendor"  # the vendor's page, document or repository
    MEASURED = "measured"  # measured on real hardware by a named third party
    REPORTED = "reported"  # secondary document or media, not checked by measurement
    DERIVED = "derived"  # arithmetic on other facts; the note shows it
    ASSUMED = "assumed"  # undisclosed: our assumption, always shown as such


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number of a data sheet.

    Attributes:
        value: in ``unit``, an SI base unit (FLOP/s, B/s, B, s, W, Hz or 1).
        source: where it stands: a document, page or measurement.
        date: when that source was current, ISO 8601 (year or year-month is enough).
    """

    value: float
    unit: str
    source: str
    date: str
    trust: Trust
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a group of plain facts comes from that are not quantities: counts, rules, flags."""

    source: str
    date: str
    trust: Trust
    note: str = ""


class Vendor(StrEnum):
    """Whose software stack the card speaks."""

    NVIDIA = "nvidia"
    MOORE_THREADS = "moore-threads"


class ScaleUp(StrEnum):
    """How the cards of one node are joined."""

    MESH = "mesh"  # every pair by its own links, no switch
    SWITCH = "switch"  # every card at full rate into a crossbar
    PCIE = "pcie"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionRules:
    """Which head dimensions and dtypes the fused attention kernel takes; others fall back to math.

    ``head_dims_max`` is inclusive; ``head_dims_extra`` are single (qk, v) pairs beyond it.
    """

    dtypes: tuple[str, ...]
    head_dim_max: int
    head_dims_extra: tuple[tuple[int, int], ...] = ()
    mask_gradient: bool = True
    provenance: Provenance | None = None

    def supports(self, dtype: str, qk_head_dim: int, v_head_dim: int) -> bool:
        """Whether the fused kernel takes this shape."""
        if dtype not in self.dtypes:
            return False
        inside = max(qk_head_dim, v_head_dim) <= self.head_dim_max
        return inside or (qk_head_dim, v_head_dim) in self.head_dims_extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One accelerator card.

    Attributes:
        peak_flops: dense peak by precision: ``fp4 fp8 int8 bf16 fp16 tf32 fp32 fp64`` plus
            ``fp64_tensor``. A precision that the chip lacks is absent; one that is undisclosed is
            present with trust ``assumed``. ``fp32`` and ``fp64`` are the vector units.
        multiprocessors: SMs, or MPs on MUSA. Tiles are quantised to waves of these.
        clock_hz: boost clock; base_clock_hz: what the power limit leaves under the heaviest load, where stated.
        l2_partitions: parts of the level-2 cache that each keep their own copy of what all multiprocessors read.
        memory_bytes: what the driver shows a process as total memory.
        link_bytes_per_s: scale-up bandwidth of one card per direction, all links together.
        launch_s: host time of one kernel launch; kernel_floor_s: shortest device time of a kernel.
        tf32_default: whether FP32 matrix products run in TF32 unless told otherwise;
            ``tf32_default_until`` is the PyTorch version from which they no longer do, empty: for ever.
        relatives: chips whose efficiency curves this one may borrow, nearest first.
    """

    name: str
    title: str
    vendor: Vendor
    architecture: str
    device_type: str  # "cuda" or "musa": what device.type reads on the real stack
    device_name: str  # what get_device_name() answers
    compute_capability: tuple[int, int]
    warp_size: int
    aliases: tuple[str, ...] = ()
    multiprocessors: Quantity
    clock_hz: Quantity
    base_clock_hz: Quantity | None = None
    peak_flops: Mapping[str, Quantity]
    memory_bytes: Quantity
    memory_bytes_per_s: Quantity
    l2_bytes: Quantity
    l2_bytes_per_s: Quantity
    l2_partitions: Quantity | None = None
    shared_memory_bytes: Quantity  # per multiprocessor
    registers_per_block: int
    threads_per_multiprocessor: int
    scale_up: ScaleUp
    link_bytes_per_s: Quantity
    links: int
    pcie_bytes_per_s: Quantity  # one direction, pinned
    nic_bytes_per_s: Quantity  # scale-out per card, one direction
    launch_s: Quantity
    graph_launch_s: Quantity
    kernel_floor_s: Quantity
    tdp_w: Quantity
    attention: AttentionRules
    tf32_default: bool
    relatives: tuple[str, ...] = ()
    cards_per_node: int = 8
    note: str = ""
    tf32_default_until: str = ""
    overrides: tuple[str, ...] = field(default=())  # `--set` overrides applied, for the report
    properties: Provenance | None = None  # of the plain counts above: capability, warp, registers, links

    def tf32_by_default(self, torch_version: str) -> bool:
        """Whether FP32 products run in TF32 on this chip's stack for a PyTorch version, unless told."""
        if not (self.tf32_default and "tf32" in self.peak_flops):
            return False
        return not (self.tf32_default_until and _at_least(torch_version, self.tf32_default_until))

    def peak(self, precision: str) -> Quantity:
        """The dense peak of ``precision``; KeyError where the chip lacks it (callers code the error)."""
        return self.peak_flops[precision]


def _at_least(version: str, other: str) -> bool:
    """Whether ``version`` is ``other`` or later, by major and minor number; an unknown one is not."""

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())

    return numbers(version) >= numbers(other)
