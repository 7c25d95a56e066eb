"""Steps of the PyTorch program recorded on the virtual card: what eager execution costs, against size."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from windtunnel.capture.cuda_names import CudaNames
from windtunnel.capture.session import Session
from windtunnel.program.program import Program
from windtunnel.specs.schema import Chip
from windtunnel.timeline.predict import predict
from windtunnel.workloads.md.forces import ForceField
from windtunnel.workloads.md.integrate import Dynamics, Scheme
from windtunnel.workloads.md.predict import RATE, SIZE, STEP_FS, ns_per_day
from windtunnel.workloads.md.water import water_box
from windtunnel.workloads.science.curve import Curve, Point

RENEW_EVERY = 20


def record_steps(
    chip: Chip, molecules: int, dtype: torch.dtype = torch.float32, step_fs: float = STEP_FS
) -> Program:
    """Two steps of ``molecules`` waters, the first with a new pair list, the second without."""
    with Session(chip, "shadow") as session, CudaNames(session):
        field = ForceField(water_box(molecules), dtype=dtype, device="cuda")
        dynamics = Dynamics(field, Scheme(step_ps=step_fs / 1000.0, renew_every=RENEW_EVERY))
        dynamics.listed_at = -RENEW_EVERY
        dynamics()
        dynamics()
        return session.program()


def eager_curve(
    chip: Chip, sizes: Sequence[int], dtype: torch.dtype = torch.float32, step_fs: float = STEP_FS
) -> Curve:
    """ns/day as the program is written, operation by operation, with one step in ``RENEW_EVERY`` renewing its list."""
    points = []
    for atoms in sizes:
        program = record_steps(chip, atoms // 3, dtype, step_fs)
        result = predict(program, chip)
        renewing, plain = (seconds for _, seconds in result.steps[-2:])
        mean_s = (renewing + (RENEW_EVERY - 1) * plain) / RENEW_EVERY
        step = result.step_time_s.scaled(mean_s / plain)
        waiting = result.parts.host_gap_s / result.step_time_s.value
        points.append(
            Point(float(3 * (atoms // 3)), ns_per_day(step, step_fs), "host" if waiting > 0.5 else "device")
        )
    return Curve(chip.name, "eager", SIZE, RATE, tuple(points))
