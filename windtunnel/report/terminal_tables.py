"""The tables of a terminal summary: where the step goes, slowest places, memory, communication."""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel import units
from windtunnel.report import grouping, words
from windtunnel.report.text_table import Shorten, TextColumn, bar, plain, render
from windtunnel.results import columns
from windtunnel.results.columns import PART_KEYS, Unit
from windtunnel.results.run_result import MemoryResult, OpRow, RunResult

MAX_KINDS = 8
MAX_PLACES = 6
MAX_STORAGES = 5
WORTH_A_ROW = 0.0005
"""Share of the step below which a part or a kind would print as 0.0 %."""


def metrics(result: RunResult, width: int) -> list[str]:
    """The answer: value, 80 % interval, note."""
    headers = (
        TextColumn("Metric"),
        TextColumn("Predicted", right=True),
        TextColumn("80 % interval", right=True, rank=1),
        TextColumn("Note", rank=2, shorten=Shorten.WRAP, least=16),
    )
    rows = [(row.label, row.value, row.interval, row.note) for row in words.metrics(result)]
    return render(headers, rows, width)


def steps(result: RunResult, width: int) -> list[str]:
    """Recorded steps by kind, where they differ: prefill and decode, or lengths that change."""
    groups = words.step_groups(result)
    if not groups:
        return []
    factor, unit = columns.scale(Unit.SECONDS, max(group.longest_s for group in groups))
    headers = (
        TextColumn("Recorded steps"),
        TextColumn("count", right=True),
        TextColumn(f"median {unit}", right=True),
        TextColumn(f"first {unit}", right=True, rank=1),
        TextColumn("shortest", right=True, rank=2),
        TextColumn("longest", right=True, rank=2),
    )
    longest_s = max(group.longest_s for group in groups)
    rows = [
        (
            group.kind,
            units.count(group.count),
            *(
                _scaled(seconds, factor, longest_s)
                for seconds in (group.median_s, group.first_s, group.shortest_s, group.longest_s)
            ),
        )
        for group in groups
    ]
    return render(headers, rows, width)


def where_the_step_goes(result: RunResult, width: int) -> list[str]:
    """Disjoint parts of the step, and under compute the kinds of kernels in it."""
    step_s = result.step_time_s.value
    factor, unit = columns.scale(Unit.SECONDS, step_s)
    headers = (
        TextColumn("Where the step goes"),
        TextColumn(unit, right=True),
        TextColumn("share", right=True, rank=1),
        TextColumn("", rank=3),
        TextColumn("limited by", rank=2),
    )

    def row(name: str, seconds: float, limit: str) -> tuple[str, ...]:
        share = seconds / step_s
        return name, _scaled(seconds, factor, step_s), _share(share), bar(share), limit

    rows = []
    for key in PART_KEYS:
        seconds = getattr(result.parts, key)
        if seconds >= WORTH_A_ROW * step_s:
            rows.append(row(columns.label(key), seconds, _part_limit(key, result)))
        if key == "compute_s":
            rows += [row(f"  {name}", kind_s, limit) for name, kind_s, limit in _kinds(result.ops, step_s)]
    rows.append(("step", _scaled(step_s, factor, step_s), "100 %", "", ""))
    return render(headers, rows, width)


def slowest_places(result: RunResult, width: int) -> list[str]:
    """Source lines and modules with the most device time; layers that differ only by number add up."""
    device_s = sum(row.seconds for row in result.ops)
    if device_s <= 0:
        return []
    factor, unit = columns.scale(Unit.SECONDS, device_s)
    headers = (
        TextColumn("Slowest places", shorten=Shorten.HEAD, least=18),
        TextColumn(unit, right=True),
        TextColumn("device", right=True, rank=1),
        TextColumn("calls", right=True, rank=4),
        TextColumn("mostly", rank=3),
        TextColumn("module", rank=2, shorten=Shorten.HEAD, least=16),
    )
    rows = []
    timed = [row for row in result.ops if row.seconds > 0]
    for group in grouping.grouped(timed, lambda row: row.line or "outside the script")[:MAX_PLACES]:
        kind = grouping.grouped(group.rows, grouping.kind)[0].name
        module = grouping.grouped(group.rows, lambda row: grouping.generic_module(row.module))[0].name
        share = _share(group.seconds / device_s)
        number = _scaled(group.seconds, factor, device_s)
        rows.append((plain(group.name), number, share, units.count(group.count), kind, plain(module)))
    return render(headers, rows, width)


def memory(result: MemoryResult, width: int) -> list[str]:
    """Bytes by category at the peak, then what the allocator holds against what the card has."""
    reserved = result.peak_reserved_bytes.value
    unit_bytes, unit = columns.memory_scale(reserved)
    headers = (TextColumn("Memory at the peak"), TextColumn(unit, right=True), TextColumn("", rank=1))
    held = [(name, size) for name, size in result.peak_by_category if size > 0]
    held.sort(key=lambda item: -item[1])
    active = sum(size for _, size in held)
    rows = [
        (name.replace("_", " "), _in(size, unit_bytes), bar(size / max(reserved, 1))) for name, size in held
    ]
    rows = [row for row in rows if row[1] != "0.00"]
    if reserved > active > 0:
        slack = reserved - active
        rows.append(("fragmentation and cache", _in(slack, unit_bytes), bar(slack / max(reserved, 1))))
    rows.append(("reserved", _in(reserved, unit_bytes), ""))
    rows.append(("usable", _in(result.usable_bytes, unit_bytes), ""))
    rows.append(
        ("headroom", _in(result.usable_bytes - reserved, unit_bytes), "" if result.fits else "does not fit")
    )
    return render(headers, rows, width)


def largest_storages(result: MemoryResult, width: int) -> list[str]:
    """The largest tensors alive at the peak and the lines that made them."""
    if not result.largest:
        return []
    unit_bytes, unit = columns.memory_scale(result.peak_reserved_bytes.value)
    headers = (
        TextColumn("Largest at the peak", shorten=Shorten.HEAD, least=18),
        TextColumn(unit, right=True),
        TextColumn("tensors", right=True, rank=3),
        TextColumn("holds", rank=1),
        TextColumn("made by", rank=2, shorten=Shorten.TAIL, least=14),
        TextColumn("module", rank=4, shorten=Shorten.HEAD, least=16),
    )
    ordered = sorted(result.largest, key=lambda storage: -storage.bytes)
    rows = [
        (
            plain(storage.line) or "outside the script",
            _in(storage.bytes, unit_bytes),
            units.count(storage.count),
            storage.category.replace("_", " "),
            plain(storage.op),
            plain(storage.module),
        )
        for storage in ordered[:MAX_STORAGES]
    ]
    return render(headers, rows, width)


def communication(result: RunResult, width: int) -> list[str]:
    """Collectives by group, as nccl-tests reports them."""
    if not result.communication:
        return []
    headers = (
        TextColumn("Communication"),
        TextColumn("group", rank=1, shorten=Shorten.HEAD),
        TextColumn("ranks", right=True, rank=5),
        TextColumn("calls", right=True, rank=4),
        TextColumn("GB", right=True, rank=3),
        TextColumn("ms", right=True),
        TextColumn("exposed ms", right=True),
        TextColumn("busbw GB/s", right=True, rank=2),
    )
    rows = [
        (
            plain(row.collective),
            plain(row.group),
            units.count(row.ranks),
            units.count(row.count),
            _two_decimals(row.bytes / units.GIGA),
            _two_decimals(row.seconds / units.MILLISECOND),
            _two_decimals(row.exposed_s / units.MILLISECOND),
            _two_decimals(row.busbw_bytes_per_s / units.GIGA),
        )
        for row in sorted(result.communication, key=lambda row: -row.seconds)
    ]
    return render(headers, rows, width)


def _kinds(ops: Sequence[OpRow], step_s: float) -> list[tuple[str, float, str]]:
    """(name, seconds, limit) of compute kernels by kind, the rest folded into one row."""
    rows = [row for row in ops if grouping.part(row) == "compute_s" and row.seconds > 0]
    groups = grouping.grouped(rows, grouping.kind)
    shown = [group for group in groups if group.seconds >= WORTH_A_ROW * step_s][:MAX_KINDS]
    result = [
        (g.name, g.seconds, words.limited_by(g.limit, g.peak_fraction, g.bandwidth_fraction)) for g in shown
    ]
    folded = groups[len(shown) :]
    rest_s = sum(group.seconds for group in folded)
    if rest_s >= WORTH_A_ROW * step_s:
        result.append((f"{len(folded)} more kinds", rest_s, ""))
    return result


def _part_limit(key: str, result: RunResult) -> str:
    if key == "host_gap_s":
        return "host"
    if key == "exposed_comm_s" and result.communication:
        whole = sum(row.seconds for row in result.communication)
        hidden = max(0.0, whole - result.parts.exposed_comm_s)
        return f"{columns.text(Unit.SECONDS, hidden)} of {columns.text(Unit.SECONDS, whole)} hidden"
    return ""


def _scaled(seconds: float, factor: float, whole_s: float) -> str:
    """Seconds in the table's unit, with as many decimals as three digits of the whole ask for."""
    head = units.significant(whole_s / factor, 4)
    return f"{seconds / factor:,.{len(head.partition('.')[2])}f}"


def _share(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _two_decimals(value: float) -> str:
    return "<0.01" if 0 < value < 0.005 else f"{value:,.2f}"


def _in(size_bytes: float, unit_bytes: float) -> str:
    return f"{size_bytes / unit_bytes:,.2f}"
