"""``torch.cuda.memory_stats()`` from the allocator's counters: names, and resets."""

from __future__ import annotations

from collections.abc import Iterable

from windtunnel.memory.blocks import METRICS, Counters, Pool

KINDS = ("all", "small_pool", "large_pool")

# `allocation` and `active` differ only while another stream holds a block back, which is not modelled
_NAMES = {
    "active": ("active", "allocation"),
    "active_bytes": ("active_bytes", "allocated_bytes"),
}


class Statistics:
    """Reads and resets the counters of all, small and large pools (in the order of ``KINDS``)."""

    def __init__(self, counters: tuple[Counters, Counters, Counters]) -> None:
        self.counters = counters
        self._base: dict[tuple[int, str], int] = {}

    def reset_peaks(self) -> None:
        """Peaks start again from the current values."""
        for counters in self.counters:
            for metric in METRICS:
                setattr(counters, f"{metric}_peak", getattr(counters, metric))

    def reset_accumulated(self) -> None:
        """Sums of increases and decreases start again from 0."""
        for number, counters in enumerate(self.counters):
            for metric in METRICS:
                setattr(counters, f"{metric}_freed", 0)
                self._base[number, metric] = getattr(counters, metric)

    def flat(self) -> dict[str, int]:
        """``<metric>.<kind>.{current,peak,allocated,freed}``."""
        values: dict[str, int] = {}
        for number, (kind, counters) in enumerate(zip(KINDS, self.counters)):
            for metric in METRICS:
                current, freed = getattr(counters, metric), getattr(counters, f"{metric}_freed")
                grown = current + freed - self._base.get((number, metric), 0)
                for name in _NAMES.get(metric, (metric,)):
                    values[f"{name}.{kind}.current"] = current
                    values[f"{name}.{kind}.peak"] = getattr(counters, f"{metric}_peak")
                    values[f"{name}.{kind}.allocated"] = grown
                    values[f"{name}.{kind}.freed"] = freed
        return values


def inactive_split(pools: Iterable[Pool]) -> dict[str, int]:
    """Free parts of segments that are in use: cached memory that cannot be returned. Current values only."""
    count = dict.fromkeys(KINDS, 0)
    nbytes = dict.fromkeys(KINDS, 0)
    for pool in pools:
        for block in pool.blocks:
            if block.split:
                for kind in ("all", "small_pool" if pool.small else "large_pool"):
                    count[kind] += 1
                    nbytes[kind] += block.size
    values = {f"inactive_split.{kind}.current": count[kind] for kind in KINDS}
    return values | {f"inactive_split_bytes.{kind}.current": nbytes[kind] for kind in KINDS}
