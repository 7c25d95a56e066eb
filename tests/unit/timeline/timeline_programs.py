"""Shared by these tests: a chip with round numbers, a price model of two lines, small programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.estimate import Estimate, Source
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import (
    Origin,
    Phase,
    ProcessGroup,
    Program,
    SourceLine,
    StepKind,
    StepMark,
)
from windtunnel.program.work import Work
from windtunnel.results.run_result import MemoryResult
from windtunnel.specs.schema import AttentionRules, Chip, Quantity, ScaleUp, Trust, Vendor


def quantity(value: float, unit: str) -> Quantity:
    return Quantity(value=value, unit=unit, source="a test", date="2026-01", trust=Trust.VENDOR)


def round_chip() -> Chip:
    """1 PFLOP/s in bf16, 1 TB/s, 5 µs a launch."""
    return Chip(
        name="round",
        title="Round numbers",
        vendor=Vendor.NVIDIA,
        architecture="none",
        device_type="cuda",
        device_name="Round",
        compute_capability=(9, 0),
        warp_size=32,
        multiprocessors=quantity(100, "1"),
        clock_hz=quantity(1e9, "Hz"),
        peak_flops={"bf16": quantity(1e15, "FLOP/s"), "fp32": quantity(1e14, "FLOP/s")},
        memory_bytes=quantity(80e9, "B"),
        memory_bytes_per_s=quantity(1e12, "B/s"),
        l2_bytes=quantity(50e6, "B"),
        l2_bytes_per_s=quantity(5e12, "B/s"),
        shared_memory_bytes=quantity(2e5, "B"),
        registers_per_block=65536,
        threads_per_multiprocessor=2048,
        scale_up=ScaleUp.SWITCH,
        link_bytes_per_s=quantity(4e11, "B/s"),
        links=18,
        pcie_bytes_per_s=quantity(5e10, "B/s"),
        nic_bytes_per_s=quantity(5e10, "B/s"),
        launch_s=quantity(5e-6, "s"),
        graph_launch_s=quantity(1e-5, "s"),
        kernel_floor_s=quantity(2e-6, "s"),
        tdp_w=quantity(700, "W"),
        attention=AttentionRules(dtypes=("bfloat16",), head_dim_max=256),
        tf32_default=False,
    )


@dataclass(frozen=True)
class Price:
    seconds: float
    low_s: float
    high_s: float
    source: Source = Source.CALIBRATED
    limit: str = "memory"
    formula: str = "bytes ÷ bandwidth + FLOPs ÷ peak"


class TwoLineModel:
    """Time = FLOPs ÷ peak + bytes ÷ bandwidth; host time = one launch a kernel, 1 µs a view."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip

    def kernel_times(self, works: Sequence[Work]) -> list[Price]:
        return [self._time(work) for work in works]

    def _time(self, work: Work) -> Price:
        seconds = (
            work.flops / self.chip.peak("bf16").value + work.bytes_moved / self.chip.memory_bytes_per_s.value
        )
        if work.kernels == 0:
            seconds = 0.0
        return Price(seconds, seconds * 0.9, seconds * 1.2)

    def host_time_s(self, work: Work) -> float:
        return work.kernels * self.chip.launch_s.value if work.kernels else 1e-6


def no_memory() -> MemoryResult:
    return MemoryResult(
        peak_reserved_bytes=Estimate.exact(1.0),
        peak_active_bytes=Estimate.exact(1.0),
        usable_bytes=2,
        total_bytes=2,
        fits=True,
        peak_by_category=(),
        peak_at="",
    )


def tensor(*shape: int, dtype: str = "bfloat16") -> TensorSpec:
    return TensorSpec(dtype, shape)


def mm(m: int, n: int, k: int) -> OpSpec:
    return OpSpec("aten.mm.default", (tensor(m, k), tensor(k, n)), (tensor(m, n),))


def add(elements: int) -> OpSpec:
    return OpSpec("aten.add.Tensor", (tensor(elements), tensor(elements)), (tensor(elements),))


def mark(name: str, **attributes: float | int) -> OpSpec:
    return OpSpec(f"windtunnel.{name}", attributes=tuple(attributes.items()))


def make_program(
    issued: Sequence[tuple[OpSpec, int, Phase]],
    *,
    kind: StepKind = StepKind.TRAIN,
    tokens: int = 0,
    groups: Sequence[ProcessGroup] = (),
    streams: int = 1,
) -> Program:
    """A program of one step: (spec, stream, phase) in order."""
    specs: list[OpSpec] = []
    sites: list[tuple[int, int, int, int, int]] = []
    events = []
    for spec, stream, phase in issued:
        if spec not in specs:
            specs.append(spec)
        site = (specs.index(spec), stream, 0, 0, int(phase))
        if site not in sites:
            sites.append(site)
        events.append(sites.index(site))
    return Program(
        origin=Origin(script="test.py"),
        specs=specs,
        works=[work_of(spec) for spec in specs],
        sites=np.array(sites, np.int64).reshape(-1, 5),
        events=np.array(events, np.int64),
        storage_bytes=np.empty(0, np.int64),
        storage_category=np.empty(0, np.int64),
        scopes=["model.layers.0.mlp"],
        lines=[SourceLine("test.py", 3)],
        streams=[f"stream {i}" for i in range(streams)],
        groups=list(groups),
        steps=[StepMark(kind, 0, len(events), tokens=tokens)],
    )
