"""Seconds of a piece of work on the device at hand: CUDA, MUSA or CPU; eager, or replayed from a graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Work = Callable[[], object]

TRIALS = 5
LEAST_S = 2e-3
"""A trial repeats the work until it takes this long, so that event resolution does not matter."""
LEAST_REPEATS, REPEATS_MAX = 5, 200
LONG_S = 0.25
"""Work that takes this long is timed twice and not in series: beside it launches and clocks cost nothing. No kernel of
a card does; processors that emulate a number format need seconds."""


@dataclass(frozen=True, slots=True)
class Timer:
    """Times work on ``device``. ``trials`` and ``least_s`` trade time against noise."""

    device: torch.device
    trials: int = TRIALS
    least_s: float = LEAST_S
    backend: Any = field(init=False)  # torch.cuda, torch.musa; None on the CPU

    def __post_init__(self) -> None:
        on_card = self.device.type != "cpu"
        object.__setattr__(self, "backend", torch.get_device_module(self.device) if on_card else None)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.backend is not None:
            self.backend.synchronize()

    def kernel_s(self, works: Sequence[Work]) -> float:
        """Device seconds of one of ``works``, called in turn: from graphs where there are graphs, median of trials.

        Several copies of the same work on different tensors keep one call from finding its operands in the cache.
        A long and a short trial are subtracted, which takes out what a launch or an event costs once.
        """
        for work in works:
            work()
        self.synchronize()
        once_s = self.once_s(works[0])
        if once_s >= LONG_S:
            return statistics.mean((once_s, self.once_s(works[-1])))
        long = max(LEAST_REPEATS, self.repeats(once_s))
        short = max(1, long // 5)
        first, second = (self._repeated(works, count) for count in (short, long))
        found = []
        for _ in range(self.trials):
            short_s, long_s = self.once_s(first), self.once_s(second)
            less = (long_s - short_s) / (long - short)
            found.append(less if less > 0 else long_s / long)
        return statistics.median(found)

    def _repeated(self, works: Sequence[Work], count: int) -> Work:
        def many() -> None:
            for number in range(count):
                works[number % len(works)]()

        return self.graphed(many) or many

    def repeats(self, once_s: float) -> int:
        """Calls in one trial."""
        return max(1, min(REPEATS_MAX, int(self.least_s / max(once_s, 1e-9))))

    def graphed(self, work: Work) -> Work | None:
        """The work as a graph to replay; None on devices without graphs and for work that cannot be captured."""
        make = getattr(self.backend, "CUDAGraph", None) or getattr(self.backend, "MUSAGraph", None)
        if make is None:
            return None
        graph = make()
        try:
            with self.backend.graph(graph):
                work()
        except RuntimeError:
            self.synchronize()
            return None
        graph.replay()
        self.synchronize()
        replay: Work = graph.replay
        return replay

    def once_s(self, work: Work) -> float:
        """Seconds from an idle device until the work is done, by the device's own events."""
        if self.backend is None:
            begin = time.perf_counter()
            work()
            return time.perf_counter() - begin
        start, end = self.backend.Event(enable_timing=True), self.backend.Event(enable_timing=True)
        self.synchronize()
        start.record()
        work()
        end.record()
        self.synchronize()
        return float(start.elapsed_time(end)) / 1e3
