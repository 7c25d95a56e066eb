"""The union of intervals as a function of time: how much of it lies before a moment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Cover:
    """Seconds of ``0..time`` that at least one of the intervals covers."""

    def __init__(self, start_s: Floats, end_s: Floats) -> None:
        order = np.argsort(start_s, kind="stable")
        start, end = start_s[order], np.maximum.accumulate(end_s[order])
        begins = np.ones(len(start), dtype=bool)
        begins[1:] = start[1:] > end[:-1]
        first = np.flatnonzero(begins)
        left, right = start[first], end[np.append(first[1:], len(end)) - 1] if len(first) else end
        whole = np.concatenate(([0.0], np.cumsum(right - left)))
        self._times = np.column_stack((left, right)).ravel()
        self._covered = np.column_stack((whole[:-1], whole[1:])).ravel()

    def __call__(self, time_s: Floats) -> Floats:
        if not len(self._times):
            return np.zeros(np.shape(time_s))
        return np.asarray(np.interp(time_s, self._times, self._covered))
