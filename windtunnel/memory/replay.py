"""From a recorded program to its memory on a chip: peaks, what stands at the peak, and the curve over time.

Live bytes are exact (a cumulative sum over allocations and frees); reserved bytes come from replaying the
caching allocator. Every figure is of one card and of the whole recording, not only its last step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from windtunnel.estimate import Estimate, Source
from windtunnel.memory.allocator import CachingAllocator
from windtunnel.memory.categories import categories_of
from windtunnel.memory.lifetimes import Lifetimes, lifetimes_of
from windtunnel.memory.live import MemoryReplay
from windtunnel.memory.oom import OutOfMemory
from windtunnel.memory.overhead import usable_bytes
from windtunnel.memory.settings import AllocatorSettings
from windtunnel.memory.workspace import hidden_bytes
from windtunnel.program.program import Category, Outcome, Program
from windtunnel.results.run_result import LiveStorage, MemoryResult
from windtunnel.specs.schema import Chip

__all__ = ["MemoryReplay", "memory_result"]

TIMELINE_POINTS = 2000
LARGEST = 10

LESS_CACHED = 0.03
UNRECORDED = 0.05
"""80 % interval below and above. Assumed: no recording could be compared with the same run on a card. Above:
scratch memory of attention and convolution libraries; below: caching that another order of frees avoids."""

Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The allocator's answer: reserved bytes after each memory event, and where it gave up.

    ``failed_at``: position in the memory events, -1 when all fit.
    """

    reserved: Array
    peak_reserved: int
    failed_at: int


def memory_result(program: Program, chip: Chip, settings: AllocatorSettings | None = None) -> MemoryResult:
    """Memory of ``program`` on one card of ``chip``.

    Where the allocator runs out, peaks are those of a card with enough memory, so that they say how much
    would be needed.
    """
    settings = settings or AllocatorSettings()
    lifetimes = lifetimes_of(program)
    usable = usable_bytes(chip)
    if not len(lifetimes.event):
        return _empty(usable, chip, program)
    active = lifetimes.active_bytes()
    categories = categories_of(program, lifetimes)
    peak = int(np.argmax(active))
    replayed = _replay(program, lifetimes, None, settings)
    failed_at = -1
    hidden = hidden_bytes(program, chip)
    if replayed.peak_reserved + hidden > usable:
        bounded = _replay(program, lifetimes, usable - hidden, settings)
        failed_at = bounded.failed_at
        replayed = bounded if failed_at < 0 else replayed
    failed = _stopped_at(program, lifetimes, failed_at)
    reserved_peak = replayed.peak_reserved + hidden
    at_peak = _alive(lifetimes, int(lifetimes.event[peak]))
    present = np.unique(categories)
    return MemoryResult(
        peak_reserved_bytes=_interval(reserved_peak, int(active[peak])),
        peak_active_bytes=_interval(int(active[peak]) + hidden, int(active[peak])),
        usable_bytes=usable,
        total_bytes=int(chip.memory_bytes.value),
        fits=not failed,
        peak_by_category=_by_category(lifetimes, categories, at_peak),
        peak_at=place(program, int(lifetimes.birth_site[lifetimes.storage[peak]])),
        largest=_largest(program, lifetimes, categories, at_peak),
        categories=tuple(_name(int(value)) for value in present),
        timeline=_timeline(program, lifetimes, categories, present, replayed.reserved, active),
        out_of_memory_at=failed,
    )


def place(program: Program, site: int) -> str:
    """``file:line (op)`` of a site; empty where there is none."""
    if site < 0:
        return ""
    spec, _, _, line, _ = program.site(site)
    return f"{program.lines[line]} ({program.specs[spec].base_name})" if program.lines else ""


def _replay(
    program: Program, lifetimes: Lifetimes, capacity: int | None, settings: AllocatorSettings
) -> Replayed:
    allocator = CachingAllocator(capacity if capacity is not None else 1 << 46, settings=settings)
    allocate, free, counters = allocator.allocate, allocator.free, allocator.driver.counters
    address = [0] * len(program.storage_bytes)
    sizes = program.storage_bytes.tolist()
    reserved: list[int] = []
    failed_at = -1
    events = zip(lifetimes.storage.tolist(), lifetimes.freeing.tolist(), lifetimes.stream.tolist())
    for storage, freeing, stream in events:
        if freeing:
            free(address[storage])
        else:
            try:
                address[storage] = allocate(sizes[storage], stream)
            except OutOfMemory:
                failed_at = len(reserved)
                break
        reserved.append(counters.reserved_bytes)
    return Replayed(np.array(reserved, dtype=np.int64), allocator.peak_reserved_bytes, failed_at)


def _interval(value: int, floor: int) -> Estimate:
    """Live bytes are a floor: they are counted. Above, what libraries take beside the recording is not known."""
    low = min(max(floor, int(value * (1 - LESS_CACHED))), value)
    return Estimate(value, low, value * (1 + UNRECORDED), ((Source.ANALYTIC, 1.0),))


def _stopped_at(program: Program, lifetimes: Lifetimes, failed_at: int) -> str:
    if failed_at >= 0:
        return (
            place(program, int(lifetimes.birth_site[lifetimes.storage[failed_at]])) or "the first allocation"
        )
    if program.origin.outcome is Outcome.OUT_OF_MEMORY:
        return program.origin.outcome_detail or "the end of the recording"
    return ""


def _alive(lifetimes: Lifetimes, event: int) -> Array:
    """Storages alive after an event."""
    return np.flatnonzero((lifetimes.born <= event) & (lifetimes.died > event) & (lifetimes.block_bytes > 0))


def _by_category(lifetimes: Lifetimes, categories: Array, alive: Array) -> tuple[tuple[str, int], ...]:
    sums = np.zeros(len(Category), dtype=np.int64)
    np.add.at(sums, categories[alive], lifetimes.block_bytes[alive])
    order = sorted((-int(nbytes), value) for value, nbytes in enumerate(sums) if nbytes)
    return tuple((_name(value), -negative) for negative, value in order)


def _largest(
    program: Program, lifetimes: Lifetimes, categories: Array, alive: Array
) -> tuple[LiveStorage, ...]:
    """Live storages summed by place and category, largest first."""
    sites = lifetimes.birth_site[alive]
    place_of_site = np.vstack([program.sites[:, [0, 2, 3]], [[-1, -1, -1]]])
    keys = np.column_stack([place_of_site[sites], categories[alive]])
    groups, member = np.unique(keys, axis=0, return_inverse=True)
    member = member.reshape(-1)
    nbytes = np.zeros(len(groups), dtype=np.int64)
    np.add.at(nbytes, member, lifetimes.block_bytes[alive])
    counts = np.bincount(member, minlength=len(groups))
    rows = []
    for group in np.argsort(-nbytes, kind="stable")[:LARGEST]:
        spec, scope, line, category = (int(value) for value in groups[group])
        rows.append(
            LiveStorage(
                bytes=int(nbytes[group]),
                count=int(counts[group]),
                category=_name(category),
                line=str(program.lines[line]) if 0 <= line < len(program.lines) else "",
                module=program.scopes[scope] if 0 <= scope < len(program.scopes) else "",
                op=program.specs[spec].base_name if spec >= 0 else "",
            )
        )
    return tuple(rows)


def _timeline(
    program: Program, lifetimes: Lifetimes, categories: Array, present: Array, reserved: Array, active: Array
) -> tuple[tuple[float, tuple[int, ...], int], ...]:
    """The fullest moment of each of at most ``TIMELINE_POINTS`` stretches of the recording."""
    count = len(active)
    edges = np.unique(np.linspace(0, count, min(count, TIMELINE_POINTS) + 1).astype(np.int64))
    points = np.array([begin + int(active[begin:end].argmax()) for begin, end in pairwise(edges)])
    deltas = lifetimes.deltas()
    of_event = categories[lifetimes.storage]
    curves = [np.cumsum(np.where(of_event == value, deltas, 0))[points].tolist() for value in present]
    fractions = (lifetimes.event[points] / max(1, len(program.events))).tolist()
    held = reserved[np.minimum(points, len(reserved) - 1)].tolist()
    return tuple((at, values, total) for at, values, total in zip(fractions, zip(*curves), held))


def _name(category: int) -> str:
    return Category(category).name.lower()


def _empty(usable: int, chip: Chip, program: Program) -> MemoryResult:
    failed = program.origin.outcome_detail if program.origin.outcome is Outcome.OUT_OF_MEMORY else ""
    return MemoryResult(
        peak_reserved_bytes=Estimate.exact(0),
        peak_active_bytes=Estimate.exact(0),
        usable_bytes=usable,
        total_bytes=int(chip.memory_bytes.value),
        fits=not failed,
        peak_by_category=(),
        peak_at="",
        out_of_memory_at=failed,
    )
