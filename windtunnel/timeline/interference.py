"""What runs beside a collective: kernels get fewer multiprocessors, other collectives a part of the links.

NCCL and DeepEP hold some multiprocessors while they run (``network/overlap.py``; none with the S5000's ACE), and
collectives of several groups ask for the same links (``network/contention.py``). Neither is known before it is known
what runs at once: a replay shows it, kernels and collectives are lengthened by what they lose there, and the ranks
are replayed again, until the step no longer moves. Sites that repeat get the mean over their repetitions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from windtunnel.network import contention
from windtunnel.network.contention import Demand, Traffic
from windtunnel.network.model import NetworkModel
from windtunnel.program.op import OpSpec
from windtunnel.program.program import Program
from windtunnel.program.work import Family
from windtunnel.timeline.card import Trace
from windtunnel.timeline.prices import Act
from windtunnel.timeline.sites import Ints, SiteTable

Floats = npt.NDArray[np.float64]

ROUNDS = 4
"""Replays at most; what runs at once settles after two or three."""
SETTLED = 1e-3
"""A step that moves by less has settled."""


@dataclass(frozen=True, slots=True)
class Loads:
    """What the collectives of a program take from what runs beside them.

    Attributes:
        held: by site, the share of multiprocessors that a collective holds; 0 for everything else.
        demands: by site, what it asks of the links; empty for everything else.
    """

    held: Floats
    demands: tuple[tuple[Demand, ...], ...]

    @property
    def any(self) -> bool:
        """Whether there is a collective that could slow others."""
        return bool(self.held.any()) or any(self.demands)


def exchange_key(spec: OpSpec) -> Hashable:
    """Equal for collectives of one program that differ in nothing but their number."""
    return spec.name, spec.inputs, spec.outputs, tuple(a for a in spec.attributes if a[0] != "work")


def loads(program: Program, network: NetworkModel) -> Loads:
    """What each site's collective takes, on the rank that ``program`` records."""
    held = np.zeros(len(program.specs))
    wanted: list[tuple[Demand, ...]] = [()] * len(program.specs)
    known: dict[Hashable, tuple[float, tuple[Demand, ...]]] = {}
    for number, (spec, work) in enumerate(zip(program.specs, program.works, strict=True)):
        if work.family is Family.COLLECTIVE and work.kernels:
            index = spec.attribute("group", 0)
            group = program.groups[index if isinstance(index, int) else 0]
            if len(group.ranks) > 1:
                key = exchange_key(spec)
                if key not in known:
                    share = network.recorded_time(spec, group, program.origin.rank).sm_share
                    known[key] = share, network.demands(spec, group, program.origin.rank)
                held[number], wanted[number] = known[key]
    specs = program.sites[:, 0]
    return Loads(held[specs], tuple(wanted[spec] for spec in specs.tolist()))


def beside(table: SiteTable, order: Ints, trace: Trace, taken: Loads) -> Floats:
    """Device seconds by site, from those of ``table`` (alone), with what ran beside each in ``trace``."""
    position, start, end = trace.arrays()
    site = order[position % max(1, len(order))]
    devices = _with_links_shared(table, site, start, taken.demands)
    return _with_multiprocessors_taken(table, devices, site, start, end, taken.held)


Replay = Callable[[Sequence[SiteTable]], tuple[float, Sequence[Trace]]]
"""Replays every rank under its table; answers the length of the step and what happened on each."""


def settle(alone: Sequence[SiteTable], sites: Sequence[Ints], taken: Sequence[Loads], replay: Replay) -> None:
    """Replay until what runs at once, and so how long it takes, no longer moves the step."""
    seconds, traces = replay(alone)
    for _ in range(ROUNDS if any(one.any for one in taken) else 0):
        times = [
            beside(table, order, trace, one)
            for table, order, trace, one in zip(alone, sites, traces, taken, strict=True)
        ]
        if all(new is table.floats[1] for table, new in zip(alone, times, strict=True)):
            break  # nothing runs beside anything
        before = seconds
        seconds, traces = replay(
            [table.with_times(table.floats[0], new) for table, new in zip(alone, times, strict=True)]
        )
        if abs(seconds - before) <= SETTLED * before:
            break


def _with_multiprocessors_taken(
    table: SiteTable, devices: Floats, site: Ints, start: Floats, end: Floats, held: Floats
) -> Floats:
    talking = held[site] > 0
    if not talking.any():
        return devices
    acts, _ = table.integers
    lost = _Integral(start[talking], end[talking], held[site[talking]])
    kernel = (acts[site] == Act.KERNEL) & (end > start)
    taken_s = lost(end[kernel]) - lost(start[kernel])
    # a kernel that loses the share h over time t does h t less work, which it makes up for at its full rate
    ratio = np.minimum(taken_s / (end[kernel] - start[kernel]), 0.9)
    if not ratio.any():
        return devices
    return devices * (1 + _mean_by_site(site[kernel], ratio / (1 - ratio), len(devices)))


def _with_links_shared(
    table: SiteTable, site: Ints, start: Floats, demands: tuple[tuple[Demand, ...], ...]
) -> Floats:
    devices = table.floats[1]
    wanted = np.array([bool(asked) for asked in demands], dtype=bool)
    moving = np.flatnonzero(wanted[site])
    if not len(moving):
        return devices
    sites, alone = site[moving], devices[site[moving]]
    traffic = [
        Traffic(table.prices[number].group, begin, seconds, demands[number])
        for number, begin, seconds in zip(sites.tolist(), start[moving].tolist(), alone.tolist(), strict=True)
    ]
    served, done = contention.served(traffic)
    longer = np.array(done) - np.array(served) - alone
    longer = np.where(longer > 1e-9 * alone, longer, 0.0)
    if not longer.any():
        return devices
    return devices + _mean_by_site(sites, longer, len(devices))


def _mean_by_site(site: Ints, values: Floats, sites: int) -> Floats:
    count = np.bincount(site, minlength=sites)
    return np.asarray(np.bincount(site, weights=values, minlength=sites) / np.maximum(count, 1))


class _Integral:
    """The time integral of the share held, piecewise linear; shares of overlapping collectives add to 0.9."""

    def __init__(self, start: Floats, end: Floats, share: Floats) -> None:
        edges = np.concatenate((start, end))
        steps = np.concatenate((share, -share))
        order = np.argsort(edges, kind="stable")
        self._edges = edges[order]
        level = np.minimum(np.cumsum(steps[order]), 0.9)
        lengths = np.diff(self._edges)
        self._values = np.concatenate(([0.0], np.cumsum(level[:-1] * lengths)))

    def __call__(self, time: Floats) -> Floats:
        return np.asarray(np.interp(time, self._edges, self._values))
