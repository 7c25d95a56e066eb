"""A recorded program priced as it was written: every operation its own kernel, the host issuing one by one."""

from __future__ import annotations

from collections.abc import Callable

from windtunnel.estimate import Estimate
from windtunnel.program.program import Program
from windtunnel.specs.schema import Chip
from windtunnel.timeline.predict import predict
from windtunnel.workloads.science.curve import Curve, Point

Rate = Callable[[Estimate], Estimate]
"""Seconds of a step → the rate that the program is about."""


def eager_point(program: Program, chip: Chip, size: float, rate: Rate, label: str = "") -> Point:
    """The rate of the last recorded step. What binds it is ``host`` where the card waits for its host."""
    result = predict(program, chip)
    waiting = result.parts.host_gap_s / result.step_time_s.value if result.step_time_s.value else 0.0
    return Point(size, rate(result.step_time_s), "host" if waiting > 0.5 else "device", label)


def eager_curve(
    programs: dict[float, Program], chip: Chip, size_name: str, rate_name: str, rate: Rate
) -> Curve:
    """Points of recordings at several sizes."""
    points = tuple(eager_point(program, chip, size, rate) for size, program in sorted(programs.items()))
    return Curve(chip.name, "eager", size_name, rate_name, points)
