"""Seconds of one step of a fused engine: a dozen hand-written kernels, one after another.

    step   = max(sum over kernels, launches × launch time of the host)
    kernel = launches × gap ÷ clock + √(latency² + issue² + cache² + memory² + fp64²)

    latency = round trips × round trip cycles ÷ clock
    issue   = instructions ÷ (issue × 128 × multiprocessors × clock)
    cache   = cache bytes ÷ (cache × cache bandwidth)
    memory  = miss × bytes ÷ (memory × bandwidth),  miss = 1 − 1 ÷ (1 + (bytes ÷ (0.8 × cache size))²)

Latency and gap are clock cycles: what a thread waits for scales with the clock, not with the width of the chip.
The root of squares stands for the change from one wave that waits to many that keep one part of the chip busy.
128 instructions a clock and multiprocessor (four schedulers of a 32-wide warp) hold for every NVIDIA chip of the
catalogue and are assumed for MUSA. FP32 peak does not appear: engines issue about 0.3 of what the schedulers
could, so the FP32 lanes are not what binds them, even where there are half as many (A100).

Constants: ``parameters/engine.toml``, fitted by ``workloads/md/fit_engine.py``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from windtunnel.estimate import Estimate, Source
from windtunnel.specs.schema import Chip, Trust
from windtunnel.workloads.science.kernel import EngineKernel

ISSUE_LANES = 128.0
RESIDENT = 0.8
"""Part of the cache that holds data from one kernel to the next."""
Z80 = 1.2816  # half-width of the central 80 % of a normal distribution


@dataclass(frozen=True, slots=True)
class EngineParameters:
    """Constants of the formula above; the first five are fitted.

    Attributes:
        trip_cycles: clock cycles of one dependent access to memory. gap_cycles: between two kernels.
        issue, cache, memory: fractions of issue slots, cache and memory bandwidth that kernels reach.
        consumer_boost: clock of a GeForce card under load over the boost clock that is advertised, which for these
            cards is a typical clock and not the highest.
        spread: standard deviation of ln(predicted ÷ measured) on chips left out of the fit.
    """

    trip_cycles: float
    gap_cycles: float
    issue: float
    cache: float
    memory: float
    consumer_boost: float
    spread: float


@dataclass(frozen=True, slots=True)
class KernelPart:
    """One kernel's seconds in the step, and what binds most of it: ``latency``, ``issue``, ``cache``, ..."""

    name: str
    seconds: float
    limit: str


@dataclass(frozen=True, slots=True)
class EngineStep:
    """A step: its seconds with an 80 % interval, its kernels, and the host's seconds to launch them."""

    seconds: Estimate
    parts: tuple[KernelPart, ...]
    launch_s: float

    @property
    def limit(self) -> str:
        """What binds most of the step: ``launch`` where the host is slower than the card."""
        if self.launch_s >= self.seconds.value:
            return "launch"
        sums: dict[str, float] = {}
        for part in self.parts:
            sums[part.limit] = sums.get(part.limit, 0.0) + part.seconds
        return max(sums, key=lambda name: sums[name])


@cache
def parameters() -> EngineParameters:
    """The shipped constants."""
    text = (
        resources.files("windtunnel.workloads.science").joinpath("parameters/engine.toml").read_text("utf-8")
    )
    return EngineParameters(**tomllib.loads(text)["values"])


def engine_step(
    kernels: Sequence[EngineKernel],
    chip: Chip,
    constants: EngineParameters | None = None,
    *,
    streams: float = 1.0,
) -> EngineStep:
    """Price one step.

    Args:
        streams: kernels that run side by side: they share gaps and latencies, not the chip's throughput.
    """
    p = constants or parameters()
    parts, seconds = _at_clock(kernels, chip, p, streams, boost_hz(chip, p))
    _, slow = _at_clock(kernels, chip, p, streams, chip.clock_hz.value)
    launch_s = math.fsum(kernel.launches for kernel in kernels) * chip.launch_s.value
    value, slow = max(seconds, launch_s), max(slow, launch_s)
    factor = math.exp(Z80 * p.spread)
    high = max(value, slow if is_clock_unsure(chip) else value) * factor
    source = Source.ASSUMED if assumed_facts(chip) else Source.CALIBRATED
    return EngineStep(Estimate(value, value / factor, high, ((source, 1.0),)), parts, launch_s)


def boost_hz(chip: Chip, p: EngineParameters) -> float:
    """The clock under load; where the FP32 peak needs more than the driver reports, what the peak needs."""
    lanes = chip.multiprocessors.value * ISSUE_LANES * 2.0
    clock = max(chip.clock_hz.value, chip.peak("fp32").value / lanes)
    return clock * (p.consumer_boost if "GeForce" in chip.device_name else 1.0)


def is_clock_unsure(chip: Chip) -> bool:
    """Whether the driver's clock is too low for the stated FP32 peak: one of the two is then wrong."""
    return (
        chip.peak("fp32").value > 1.05 * chip.multiprocessors.value * ISSUE_LANES * 2.0 * chip.clock_hz.value
    )


def assumed_facts(chip: Chip) -> dict[str, str]:
    """What the prediction takes for granted about ``chip`` that nobody has published, by name."""
    facts = {
        "multiprocessors": chip.multiprocessors,
        "launch_s": chip.launch_s,
        "memory_bytes_per_s": chip.memory_bytes_per_s,
    }
    found = {name: fact.note or fact.source for name, fact in facts.items() if fact.trust is Trust.ASSUMED}
    if is_clock_unsure(chip):
        found["clock_hz"] = (
            f"the driver reports {chip.clock_hz.value / 1e9:.2f} GHz, the FP32 peak needs "
            f"{chip.peak('fp32').value / (2 * ISSUE_LANES * chip.multiprocessors.value) / 1e9:.2f} GHz"
        )
    if chip.vendor.value != "nvidia":
        found["issue"] = "instructions a clock and cycles of a memory access are taken from NVIDIA chips"
    return found


def _at_clock(
    kernels: Sequence[EngineKernel], chip: Chip, p: EngineParameters, streams: float, clock_hz: float
) -> tuple[tuple[KernelPart, ...], float]:
    parts = tuple(_part(kernel, chip, p, streams, clock_hz) for kernel in kernels)
    return parts, math.fsum(part.seconds for part in parts)


def _part(
    kernel: EngineKernel, chip: Chip, p: EngineParameters, streams: float, clock_hz: float
) -> KernelPart:
    gap = kernel.launches * p.gap_cycles / clock_hz / streams
    times: Mapping[str, float] = {
        "latency": kernel.round_trips * p.trip_cycles / clock_hz / streams,
        "issue": kernel.instructions / (p.issue * ISSUE_LANES * chip.multiprocessors.value * clock_hz),
        "cache": kernel.cache_bytes / (p.cache * chip.l2_bytes_per_s.value),
        "memory": _misses(kernel.memory_bytes, chip)
        * kernel.memory_bytes
        / (p.memory * chip.memory_bytes_per_s.value),
        "fp64": kernel.fp64_flops / chip.peak("fp64").value if kernel.fp64_flops else 0.0,
    }
    largest = max(times, key=lambda name: times[name])
    limit = "latency" if gap > times[largest] else largest
    return KernelPart(kernel.name, gap + math.hypot(*times.values()), limit)


def _misses(nbytes: float, chip: Chip) -> float:
    ratio = (nbytes / (RESIDENT * chip.l2_bytes.value)) ** 2
    return ratio / (1.0 + ratio)
