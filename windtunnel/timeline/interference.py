"""Kernels that run beside a collective get fewer multiprocessors: by how much that lengthens them.

NCCL and DeepEP hold some multiprocessors while they run (``network/overlap.py``; none with the S5000's ACE).
A first replay shows how much of each kernel lies beside a collective; kernels are then lengthened by what
they lose in that part, and the ranks replayed again. Sites that repeat get the mean over their repetitions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from windtunnel.timeline.card import Trace
from windtunnel.timeline.prices import Act
from windtunnel.timeline.sites import Ints, SiteTable

Floats = npt.NDArray[np.float64]


def stretched(table: SiteTable, order: Ints, trace: Trace, held: Floats) -> Floats:
    """Device seconds by site with the multiprocessors taken off that collectives held.

    ``held``: by site, the share of multiprocessors that a collective holds; 0 for everything else.
    """
    acts, _ = table.integers
    devices = table.floats[1]
    position, start, end = trace.arrays()
    site = order[position % max(1, len(order))]
    talking = held[site] > 0
    if not talking.any():
        return devices
    lost = _Integral(start[talking], end[talking], held[site[talking]])
    kernel = (acts[site] == Act.KERNEL) & (end > start)
    beside = lost(end[kernel]) - lost(start[kernel])
    # a kernel that loses the share h over time t does h t less work, which it makes up for at its full rate
    ratio = np.minimum(beside / (end[kernel] - start[kernel]), 0.9)
    count = np.bincount(site[kernel], minlength=len(devices))
    whole = np.bincount(site[kernel], weights=ratio / (1 - ratio), minlength=len(devices))
    return devices * (1 + whole / np.maximum(count, 1))


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
