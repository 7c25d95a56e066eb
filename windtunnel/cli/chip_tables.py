"""Chips as text: a list to compare, and one chip with the origin of every number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from windtunnel import units
from windtunnel.cli.output import wrapped
from windtunnel.report.text_table import Shorten, TextColumn, plain, render
from windtunnel.specs.files import UNITS
from windtunnel.specs.schema import Chip, Provenance, Quantity, ScaleUp, Trust

MARK = "*"
"""After every assumed number of the list."""

ABSENT = "–"
INDENT = "      "

NAMES = {
    "multiprocessors": "Multiprocessors",
    "clock_hz": "Clock",
    "memory_bytes": "Memory",
    "memory_bytes_per_s": "Memory bandwidth",
    "l2_bytes": "L2 cache",
    "l2_bytes_per_s": "L2 bandwidth",
    "shared_memory_bytes": "Shared memory, each MP",
    "link_bytes_per_s": "Scale-up links, one way",
    "pcie_bytes_per_s": "Host link, one way",
    "nic_bytes_per_s": "Network, one way",
    "launch_s": "Kernel launch, host",
    "graph_launch_s": "Graph launch, host",
    "kernel_floor_s": "Shortest kernel",
    "tdp_w": "Power",
}
PRECISION_NAMES = {
    "fp4": "FP4",
    "fp8": "FP8",
    "int8": "INT8",
    "bf16": "BF16",
    "fp16": "FP16",
    "tf32": "TF32",
    "fp32": "FP32",
    "fp64": "FP64",
    "fp64_tensor": "FP64, matrix",
}


def several(chips: Sequence[Chip], clusters: Sequence[str], width: int) -> list[str]:
    """One row a chip, then the names of clusters. Numbers stay whole; unimportant columns go first."""
    columns = (
        TextColumn("chip"),
        TextColumn("FP8", right=True, rank=1),
        TextColumn("BF16", right=True),
        TextColumn("TF32", right=True, rank=4),
        TextColumn("FP32", right=True, rank=3),
        TextColumn("FP64", right=True, rank=2),
        TextColumn("memory", right=True),
        TextColumn("bandwidth", right=True),
        TextColumn("links", right=True, rank=1),
        TextColumn("network", right=True, rank=3),
        TextColumn("MPs", right=True, rank=5),
        TextColumn("power", right=True, rank=4),
        TextColumn("also called", rank=6, shorten=Shorten.TAIL),
    )
    lines = render(columns, [_row(chip) for chip in chips], width)
    legend = (
        "Dense peaks in TFLOP/s; memory in GiB; bandwidth, links and network in GB/s, one direction; power "
        f"in W. {MARK} assumed: undisclosed, or not measured on this chip. "
        "Origin of every number: windtunnel chips show NAME"
    )
    whole = f"Cards of one kind: --on mtt-s5000:64. Whole clusters: {', '.join(clusters)}"
    return [*lines, "", *wrapped(legend, width, " "), *wrapped(whole, width, " ")]


def one(chip: Chip, width: int) -> list[str]:
    """Every number of a chip and, below each, where it comes from. Nothing is cut at any width."""
    lines = [plain(f"{chip.title} ({chip.name})")]
    about = f"{chip.architecture}; PyTorch device `{chip.device_type}`, called {chip.device_name}"
    lines += wrapped(plain(about), width, " ")
    if chip.aliases:
        lines += wrapped(plain(f"also called {', '.join(chip.aliases)}"), width, " ")
    if chip.relatives:
        lines += wrapped(plain(f"borrows efficiencies from {', '.join(chip.relatives)}"), width, " ")
    if chip.note:
        lines += wrapped(plain(chip.note), width, " ")
    lines += ["", " Dense peaks"]
    for key, peak in chip.peak_flops.items():
        lines += _entry(PRECISION_NAMES[key], peak, width)
    lines += ["", " Memory, links and times"]
    for key in UNITS:
        lines += _entry(NAMES[key], getattr(chip, key), width)
    lines += ["", *_facts(chip, width), "", *wrapped(_assumed(chip), width, " ")]
    return lines


def value_text(quantity: Quantity) -> str:
    """A quantity in the unit people read: TFLOP/s, GiB, GB/s, µs, GHz, W."""
    number, space, unit = _TEXTS[quantity.unit](quantity.value).partition(" ")
    return f"{_short(number)}{space}{unit}"


_TEXTS: dict[str, Callable[[float], str]] = {
    "FLOP/s": lambda value: f"{units.significant(value / units.TERA, 4)} TFLOP/s",
    "B": lambda value: units.binary_bytes(value, 4),
    "B/s": lambda value: units.decimal(value, "B/s", 4) if value else "none",
    "s": units.seconds,
    "W": lambda value: f"{value:,.0f} W",
    "Hz": lambda value: units.decimal(value, "Hz", 4),
    "1": units.count,
}


def _row(chip: Chip) -> list[str]:
    peaks = [_peak(chip, key) for key in ("fp8", "bf16", "tf32", "fp32", "fp64")]
    return [
        chip.name,
        *peaks,
        _scaled(chip.memory_bytes, units.GIB),
        _scaled(chip.memory_bytes_per_s, units.GIGA, 4),
        ABSENT if chip.scale_up is ScaleUp.PCIE else _scaled(chip.link_bytes_per_s, units.GIGA),
        _scaled(chip.nic_bytes_per_s, units.GIGA),
        _scaled(chip.multiprocessors, 1),
        _scaled(chip.tdp_w, 1, 4),
        plain(", ".join(chip.aliases)),
    ]


def _peak(chip: Chip, key: str) -> str:
    return _scaled(chip.peak_flops[key], units.TERA, 4) if key in chip.peak_flops else ABSENT


def _scaled(quantity: Quantity, scale: float, digits: int = 3) -> str:
    """The number alone, with the mark of an assumption; a space keeps digits in line."""
    text = _short(units.significant(quantity.value / scale, digits))
    return text + (MARK if quantity.trust is Trust.ASSUMED else " ")


def _short(number: str) -> str:
    """Without the zeros at the end of a decimal fraction."""
    return number.rstrip("0").rstrip(".") if "." in number else number


def _entry(name: str, quantity: Quantity, width: int) -> list[str]:
    head = f"   {name:<24}{value_text(quantity):>16}   {_trust(quantity.trust):<9}  {quantity.date}"
    return [head, *_origin(quantity.source, quantity.note, width)]


def _origin(source: str, note: str, width: int) -> list[str]:
    lines = wrapped(plain(source), width, INDENT)
    return lines + (wrapped(plain(f"({note})"), width, INDENT) if note else [])


def _trust(trust: Trust) -> str:
    return "ASSUMED" if trust is Trust.ASSUMED else str(trust)


def _facts(chip: Chip, width: int) -> list[str]:
    major, minor = chip.compute_capability
    until = f" before PyTorch {chip.tf32_default_until}" if chip.tf32_default_until else ""
    counts = (
        f"compute capability {major}.{minor}, warps of {chip.warp_size} threads, "
        f"{chip.registers_per_block:,} registers a block, {chip.threads_per_multiprocessor:,} threads a "
        f"multiprocessor, {chip.links} links to a {chip.scale_up}, {chip.cards_per_node} cards a node, "
        f"TF32 {'on' if chip.tf32_default else 'off'} by default{until}"
    )
    rules = chip.attention
    extra = "".join(f", also {qk} with {v}" for qk, v in rules.head_dims_extra)
    attention = (
        f"fused for {', '.join(rules.dtypes)} up to head dimension {rules.head_dim_max:,}{extra}; "
        f"{'with' if rules.mask_gradient else 'without'} gradients of the mask; else as separate operations"
    )
    return [
        *_fact("Programming model", counts, chip.properties, width),
        *_fact("Attention", attention, rules.provenance, width),
    ]


def _fact(name: str, text: str, origin: Provenance | None, width: int) -> list[str]:
    lines = [f" {name}", *wrapped(text, width, "   ")]
    if origin is not None:
        lines += wrapped(plain(f"{_trust(origin.trust)}, {origin.date}: {origin.source}"), width, INDENT)
        lines += wrapped(plain(f"({origin.note})"), width, INDENT) if origin.note else []
    return lines


def _assumed(chip: Chip) -> str:
    """How much of the sheet is assumption, by name."""
    named = {PRECISION_NAMES[key]: peak for key, peak in chip.peak_flops.items()}
    named |= {NAMES[key]: getattr(chip, key) for key in UNITS}
    assumed = [name for name, quantity in named.items() if quantity.trust is Trust.ASSUMED]
    if not assumed:
        return f"None of {len(named)} numbers is assumed."
    return f"{len(assumed)} of {len(named)} numbers are assumed: {'; '.join(assumed)}."
