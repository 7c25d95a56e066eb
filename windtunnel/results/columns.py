"""The one place where a column is named, labelled, united and defined.

Keys are what JSON and CSV say and never change within a major version; labels are for people. What this is
not: values. Results hold those under the same keys; reports turn them into text with ``Unit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from windtunnel import units


class Unit(StrEnum):
    """The unit a value is stored in. Rates are decimal, memory is binary."""

    SECONDS = "s"
    BYTES = "B"
    FRACTION = "fraction"  # printed in percent
    FLOP = "FLOP"
    FLOP_PER_S = "FLOP/s"
    BYTES_PER_S = "B/s"
    TERAFLOP_PER_S_PER_GPU = "TFLOP/s/GPU"
    TOKENS_PER_S_PER_GPU = "tokens/s/GPU"
    TOKENS_PER_S = "tokens/s"
    SAMPLES_PER_S_PER_GPU = "samples/s/GPU"
    COUNT = "count"
    TEXT = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity that results hold and reports show."""

    key: str
    label: str
    unit: Unit
    definition: str


COLUMNS: tuple[Column, ...] = (
    Column("step_kind", "Step", Unit.TEXT, "what ends a step: train, prefill, decode, forward or script"),
    Column("step_time_s", "Step time", Unit.SECONDS, "one step, start to start, on the critical rank"),
    Column(
        "tokens_per_s_per_gpu",
        "Throughput",
        Unit.TOKENS_PER_S_PER_GPU,
        "tokens of the global batch ÷ step time ÷ cards",
    ),
    Column(
        "samples_per_s_per_gpu",
        "Throughput",
        Unit.SAMPLES_PER_S_PER_GPU,
        "samples of the global batch ÷ step time ÷ cards; where the model takes no tokens",
    ),
    Column("tokens_per_s", "Throughput, all", Unit.TOKENS_PER_S, "tokens of the global batch ÷ step time"),
    Column("model_flops_per_token", "Model FLOPs", Unit.FLOP, "per token, without recomputation"),
    Column(
        "model_tflops_per_gpu",
        "Model FLOP/s",
        Unit.TERAFLOP_PER_S_PER_GPU,
        "model FLOPs, without recomputation, ÷ step time",
    ),
    Column(
        "mfu",
        "MFU",
        Unit.FRACTION,
        "model FLOP/s ÷ dense peak of the matmul dtype; full attention is counted (PaLM)",
    ),
    Column(
        "mfu_causal", "MFU, causal", Unit.FRACTION, "as MFU, with the causal half of attention (Megatron-LM)"
    ),
    Column("hfu", "HFU", Unit.FRACTION, "as MFU, with recomputation counted"),
    Column("mbu", "MBU", Unit.FRACTION, "bytes that must move ÷ step time ÷ peak memory bandwidth"),
    Column(
        "compute_s",
        "compute",
        Unit.SECONDS,
        "kernels on the critical rank that nothing hides, optimizer apart",
    ),
    Column("exposed_comm_s", "exposed communication", Unit.SECONDS, "communication that no kernel hides"),
    Column("bubble_s", "pipeline bubble", Unit.SECONDS, "a stage waiting for another"),
    Column("host_gap_s", "launch and host gaps", Unit.SECONDS, "the card waiting for the host"),
    Column("optimizer_s", "optimizer", Unit.SECONDS, "kernels of optimizer.step()"),
    Column(
        "io_s", "input and output", Unit.SECONDS, "copies to and from the host, data loading, checkpoints"
    ),
    Column(
        "effective",
        "Effective training time",
        Unit.FRACTION,
        "training at full speed that was kept ÷ wall-clock time of days, with the spread of seeded histories",
    ),
    Column("failures", "Failures", Unit.COUNT, "interruptions in the whole time"),
    Column("useful", "training", Unit.FRACTION, "steps that were kept, at the speed of the median rank"),
    Column("stragglers", "stragglers", Unit.FRACTION, "waiting for the slowest rank of each step"),
    Column("checkpoints", "checkpoints", Unit.FRACTION, "training stands still while state is copied"),
    Column("lost", "work lost", Unit.FRACTION, "steps since the last checkpoint, done again after a failure"),
    Column("restarts", "restarts", Unit.FRACTION, "from a failure to the first step again"),
    Column(
        "efficiency", "efficiency", Unit.FRACTION, "throughput per card ÷ that of the smallest cluster shown"
    ),
    Column("peak_reserved_bytes", "Peak memory", Unit.BYTES, "the most that the caching allocator held"),
    Column("peak_active_bytes", "Peak active", Unit.BYTES, "the most that live tensors held"),
    Column("usable_bytes", "usable", Unit.BYTES, "memory of the card less what its context takes"),
    Column("headroom_bytes", "headroom", Unit.BYTES, "usable memory less the reserved peak"),
    Column("seconds", "time", Unit.SECONDS, "device time summed over the step, before overlap"),
    Column(
        "share", "share", Unit.FRACTION, "of the step time, or of device time where operations are listed"
    ),
    Column("count", "calls", Unit.COUNT, "times issued within the step"),
    Column("flops", "FLOPs", Unit.FLOP, "multiply and add counted as two"),
    Column("bytes_moved", "bytes", Unit.BYTES, "least traffic to memory: each input and output once"),
    Column(
        "peak_fraction", "of peak", Unit.FRACTION, "FLOP/s of the kernel alone ÷ dense peak of its precision"
    ),
    Column("bandwidth_fraction", "of bandwidth", Unit.FRACTION, "B/s of the kernel alone ÷ peak bandwidth"),
    Column(
        "limit", "limited by", Unit.TEXT, "what bounds it: compute, memory, l2, latency, launch or network"
    ),
    Column(
        "algbw_bytes_per_s", "algbw", Unit.BYTES_PER_S, "bytes of one rank's tensor ÷ time, as nccl-tests"
    ),
    Column("busbw_bytes_per_s", "busbw", Unit.BYTES_PER_S, "algbw × the traffic factor of the collective"),
    Column("exposed_s", "exposed", Unit.SECONDS, "the part of its time that no kernel hides"),
    Column("source", "source", Unit.TEXT, "measured, calibrated, analytic, datasheet or assumed"),
    Column("low", "low", Unit.TEXT, "lower end of the 80 % interval"),
    Column("high", "high", Unit.TEXT, "upper end of the 80 % interval"),
)

PART_KEYS = ("compute_s", "exposed_comm_s", "bubble_s", "host_gap_s", "optimizer_s", "io_s")
"""The disjoint parts of a step, in the order to show them."""

LONG_RUN_KEYS = ("useful", "stragglers", "checkpoints", "lost", "restarts")
"""The disjoint parts of a long run, in the order to show them."""

_BY_KEY = {column.key: column for column in COLUMNS}
_TIME_SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_DECIMAL_SCALES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def column(key: str) -> Column:
    """The column called ``key``. KeyError for a key that is not defined here."""
    return _BY_KEY[key]


def label(key: str) -> str:
    """What people read for ``key``."""
    return _BY_KEY[key].label


def scale(unit: Unit, value: float) -> tuple[float, str]:
    """Divide by the first, then print the second, so that ``value`` reads well."""
    size = abs(value)
    if unit is Unit.FRACTION:
        return 0.01, "%"
    if unit is Unit.BYTES:
        return units.GIB, "GiB"
    if unit is Unit.SECONDS:
        return _time_scale(size)
    if unit in (Unit.FLOP, Unit.FLOP_PER_S, Unit.BYTES_PER_S):
        for factor, prefix in _DECIMAL_SCALES:
            if size >= factor:
                return factor, prefix + unit
        return 1.0, str(unit)
    return 1.0, "" if unit in (Unit.TEXT, Unit.COUNT) else str(unit)


def memory_scale(largest_bytes: float) -> tuple[float, str]:
    """The unit of a table of memory: GiB, or MiB where all of it is less than one GiB."""
    return (units.GIB, "GiB") if largest_bytes >= units.GIB else (units.MIB, "MiB")


def numbers(unit: Unit, values: Sequence[float]) -> tuple[tuple[str, ...], str]:
    """Several values in the one scale and number of decimals that suit the first, and the unit's text.

    ``SECONDS, (1.39, 1.31, 1.5)`` → ``("1.39", "1.31", "1.50"), "s"``. The first keeps three significant
    digits (counts: all of them).
    """
    factor, suffix = scale(unit, values[0])
    head = units.significant(values[0] / factor)
    if unit is Unit.COUNT:
        head = units.count(values[0])
    decimals = len(head.partition(".")[2])
    return tuple(f"{value / factor:,.{decimals}f}" for value in values), suffix


def text(unit: Unit, value: float) -> str:
    """One value with its unit: ``FRACTION, 0.345`` → ``34.5 %``."""
    (number,), suffix = numbers(unit, (value,))
    return f"{number} {suffix}".rstrip()


def _time_scale(size: float) -> tuple[float, str]:
    if size >= 7200:
        return 3600.0, "h"
    if size >= 120:
        return 60.0, "min"
    for factor, suffix in _TIME_SCALES:
        if size >= factor:
            return factor, suffix
    return (1.0, "s") if size == 0 else (1e-9, "ns")
