"""A chip's file, ``chips/<name>/chip.toml``: read, completed from the chip it is based on, and checked.

What this is not: the search for names (``catalogue.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from windtunnel.specs.schema import AttentionRules, Chip, Provenance, Quantity, ScaleUp, Trust, Vendor
from windtunnel.specs.table import PROVENANCE_KEYS, Table, read_toml

FILE_NAME = "chip.toml"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""Names of folders, and so of chips: no dots, commas or colons, which `--set` and `--on` give a meaning."""

UNITS: Mapping[str, str] = {
    "multiprocessors": "1",
    "clock_hz": "Hz",
    "memory_bytes": "B",
    "memory_bytes_per_s": "B/s",
    "l2_bytes": "B",
    "l2_bytes_per_s": "B/s",
    "shared_memory_bytes": "B",
    "link_bytes_per_s": "B/s",
    "pcie_bytes_per_s": "B/s",
    "nic_bytes_per_s": "B/s",
    "launch_s": "s",
    "graph_launch_s": "s",
    "kernel_floor_s": "s",
    "tdp_w": "W",
}
"""The quantities of a chip and the SI base unit of each."""

BASE_CLOCK, PARTITIONS = "base_clock_hz", "l2_partitions"

PRECISIONS = ("fp4", "fp8", "int8", "bf16", "fp16", "tf32", "fp32", "fp64", "fp64_tensor")
PEAK_UNIT = "FLOP/s"

FASTER = (("fp4", "fp8"), ("fp8", "bf16"), ("bf16", "tf32"), ("fp32", "fp64"), ("fp64_tensor", "fp64"))
"""Pairs of precisions: the first is never slower than the second on a real chip."""

DEVICE_TYPES = ("cuda", "musa")
_TEXTS = ("title", "vendor", "architecture", "device_type", "device_name", "scale_up", "note", "based_on")
_PROPERTIES = (
    "compute_capability",
    "warp_size",
    "registers_per_block",
    "threads_per_multiprocessor",
    "links",
    "cards_per_node",
)
_ATTENTION = ("dtypes", "head_dim_max", "head_dims_extra", "mask_gradient")
_OWN = ("aliases", "based_on", "note")
_RULES = ("tf32_default", "tf32_default_until", "properties", "attention", "peak_flops")
_KEYS = (*_TEXTS, "aliases", "relatives", *_RULES, *UNITS, BASE_CLOCK, PARTITIONS)

Base = Callable[[str], Mapping[str, object]]


def chip_of_folder(folder: Path, base: Base) -> Chip:
    """The chip that ``folder`` describes; its name is the folder's.

    Args:
        base: finds the completed data of the chip named by ``based_on``.

    Raises:
        WindtunnelError: E102 to E106 and E109, naming the file and the path inside it.
    """
    table = completed(folder, base)
    if not NAME.fullmatch(folder.name):
        raise table.error(
            "E109",
            f"`{folder.name}` cannot be the name of a chip",
            hint="name the folder with small letters, digits and hyphens, as my-card",
        )
    return _chip(folder.name, table)


def completed(folder: Path, base: Base) -> Table:
    """The file's data on top of those of the chip it is based on."""
    own = _read(folder)
    own.only(_KEYS)
    if not own.has("based_on"):
        return own
    name = own.text("based_on")
    return Table(_over(own.data, base(name), name), own.file)


def aliases_of(folder: Path) -> tuple[str, ...]:
    """The other names of the chip in ``folder``."""
    return _read(folder).texts("aliases", ())


def _read(folder: Path) -> Table:
    """The file as it is on disk now; parsed once as long as it stays the same."""
    file = folder / FILE_NAME
    return _parsed(file, file.stat().st_mtime_ns) if file.is_file() else read_toml(file)


@cache
def _parsed(file: Path, _changed_ns: int) -> Table:
    return read_toml(file)


def _over(own: Mapping[str, object], below: Mapping[str, object], base: str) -> dict[str, object]:
    """``own`` replaces ``below``; peaks are joined, and a number is replaced together with its source."""
    merged = {key: _taken_over(value, base) for key, value in below.items() if key not in _OWN}
    for key, value in own.items():
        old = merged.get(key)
        joined = key == "peak_flops" and isinstance(value, dict) and isinstance(old, dict)
        merged[key] = {**old, **value} if joined else value  # type: ignore[dict-item]
    return merged


def _taken_over(value: object, base: str) -> object:
    """Numbers of another chip: their source stays, but they are a conclusion here, and say so."""
    if not isinstance(value, dict):
        return value
    if "trust" not in value:
        return {key: _taken_over(item, base) for key, item in value.items()}
    note = str(value.get("note", ""))
    said = note if note.startswith("as ") else f"as {base}: {note}".rstrip(": ")
    trust = value["trust"] if value["trust"] == Trust.ASSUMED else str(Trust.DERIVED)
    return {**value, "trust": trust, "note": said}


def _chip(name: str, table: Table) -> Chip:
    counts, counts_from = _properties(table)
    scale_up = table.choice("scale_up", ScaleUp)
    if table.text("device_type") not in DEVICE_TYPES:
        raise table.wrong("device_type", table.text("device_type"), "one of " + ", ".join(DEVICE_TYPES))
    numbers = {
        key: table.quantity(key, unit, zero=key == "link_bytes_per_s" and scale_up is ScaleUp.PCIE)
        for key, unit in UNITS.items()
    }
    return Chip(
        name=name,
        title=table.text("title"),
        vendor=table.choice("vendor", Vendor),
        architecture=table.text("architecture"),
        device_type=table.text("device_type"),
        device_name=table.text("device_name"),
        compute_capability=counts.pair("compute_capability"),
        warp_size=counts.integer("warp_size"),
        aliases=table.texts("aliases", ()),
        registers_per_block=counts.integer("registers_per_block"),
        threads_per_multiprocessor=counts.integer("threads_per_multiprocessor"),
        links=counts.integer("links", least=0 if scale_up is ScaleUp.PCIE else 1),
        cards_per_node=counts.integer("cards_per_node", 8),
        properties=counts_from,
        peak_flops=_peaks(table),
        scale_up=scale_up,
        attention=_attention(table),
        tf32_default=table.flag("tf32_default"),
        tf32_default_until=table.text("tf32_default_until", ""),
        relatives=table.texts("relatives", ()),
        note=table.text("note", ""),
        multiprocessors=numbers["multiprocessors"],
        clock_hz=numbers["clock_hz"],
        base_clock_hz=table.quantity(BASE_CLOCK, "Hz") if table.has(BASE_CLOCK) else None,
        memory_bytes=numbers["memory_bytes"],
        memory_bytes_per_s=numbers["memory_bytes_per_s"],
        l2_bytes=numbers["l2_bytes"],
        l2_bytes_per_s=numbers["l2_bytes_per_s"],
        l2_partitions=table.quantity(PARTITIONS, "1") if table.has(PARTITIONS) else None,
        shared_memory_bytes=numbers["shared_memory_bytes"],
        link_bytes_per_s=numbers["link_bytes_per_s"],
        pcie_bytes_per_s=numbers["pcie_bytes_per_s"],
        nic_bytes_per_s=numbers["nic_bytes_per_s"],
        launch_s=numbers["launch_s"],
        graph_launch_s=numbers["graph_launch_s"],
        kernel_floor_s=numbers["kernel_floor_s"],
        tdp_w=numbers["tdp_w"],
    )


def _properties(table: Table) -> tuple[Table, Provenance]:
    properties = table.table("properties")
    properties.only((*_PROPERTIES, *PROVENANCE_KEYS))
    return properties, properties.provenance()


def _peaks(table: Table) -> dict[str, Quantity]:
    peaks = table.table("peak_flops")
    peaks.only(PRECISIONS)
    found = {key: peaks.quantity(key, PEAK_UNIT) for key in PRECISIONS if peaks.has(key)}
    if "fp32" not in found:
        raise peaks.error(
            "E103", "`peak_flops.fp32` is missing", hint="every chip needs the peak of its FP32 vector units"
        )
    for fast, slow in FASTER:
        if fast in found and slow in found and found[fast].value < found[slow].value:
            raise peaks.error(
                "E109",
                f"`peak_flops.{fast}` is below `peak_flops.{slow}`",
                hint="state dense peaks in FLOP/s; one of the two is probably in another unit or sparse",
                values={fast: found[fast].value, slow: found[slow].value},
            )
    return found


def _attention(table: Table) -> AttentionRules:
    rules = table.table("attention")
    rules.only((*_ATTENTION, *PROVENANCE_KEYS))
    return AttentionRules(
        dtypes=rules.texts("dtypes"),
        head_dim_max=rules.integer("head_dim_max"),
        head_dims_extra=rules.pairs("head_dims_extra"),
        mask_gradient=rules.flag("mask_gradient", True),
        provenance=rules.provenance(),
    )
