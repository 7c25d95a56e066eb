"""Fit the constants of ``windtunnel/network/parameters/*.toml`` on the calibration collectives.

    python -m windtunnel.validation.calibrate.network MEASUREMENTS/calibration OUT_DIR

Least squares on log ratios with a soft loss; residual quantiles become the intervals. Needs scipy. The models
themselves are those of ``windtunnel/network``: nothing is fitted that is not used, nothing used is elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from windtunnel.estimate import Source
from windtunnel.network.fabric import fabric_s
from windtunnel.network.mesh import mesh_s
from windtunnel.network.parameters import (
    FabricParameters,
    Interval,
    MeshParameters,
    Regime,
)
from windtunnel.validation.calibrate.network_expert import fit_expert
from windtunnel.validation.calibrate.network_fit import NO_INTERVAL, Vector, fit, quantiles
from windtunnel.validation.calibrate.network_points import Point, fabric_points, mesh_points
from windtunnel.validation.calibrate.network_switch import fit_engines, fit_switch
from windtunnel.validation.calibrate.network_write import write_tables

SMALL_EXCHANGE = (0.5, 4.0)
"""Measured over predicted of exchanges below 1 MiB on a mesh: none was measured in public. ``mesh.py`` has the bounds:
one step instead of two, and the 283 us at which the line through the large all-reduces starts."""


def fit_mesh(folder: Path) -> tuple[MeshParameters, Interval]:
    """S5000: pair efficiency and pipeline fill from the MCCL points, copies apart; small exchanges are assumed."""
    points = mesh_points(folder)
    found = fit_mesh_points(points)
    low, high = SMALL_EXCHANGE
    return found, replace(quantiles(_mesh_times(points, found), points), small_low=low, small_high=high)


def fit_mesh_points(points: Sequence[Point]) -> MeshParameters:
    """The constants of a mesh from exchanges on it."""

    def parameters(v: Vector) -> MeshParameters:
        # MCCL's latency is not measured in public: SimuMax's S5000-shaped template says 35 us a step
        return MeshParameters(35e-6, v[4], v[0], v[1], v[2], v[3], NO_INTERVAL, Source.CALIBRATED)

    measured = np.array([p.seconds for p in points])
    start = [0.5e-6, 0.6, 0.64, 0.75, 3e-6]
    return parameters(
        fit(start, lambda v: _mesh_times(points, parameters(v)), measured, np.ones(len(points)))
    )


def _mesh_times(points: Sequence[Point], parameters: MeshParameters) -> Vector:
    return np.array([mesh_s(p.kind, p.bytes, p.ranks, p.link / 7, parameters)[0] for p in points])


def fit_fabric(folder: Path) -> tuple[FabricParameters, Interval]:
    """Between nodes: send/recv over one 400G NIC, and the vendor's asymptotic all-reduce and all-to-all."""
    points = fabric_points(folder)

    def parameters(v: Vector) -> FabricParameters:
        return FabricParameters(v[0], v[1], v[2], v[3], Regime(v[1], v[4]), NO_INTERVAL)

    def times(v: Vector) -> Vector:
        p = parameters(v)
        return np.array([fabric_s(q.kind, q.bytes, q.shape, q.nic, p)[0] for q in points])

    measured = np.array([p.seconds for p in points])
    weights = np.array([8.0 if p.ranks > 2 else 1.0 for p in points])
    x = fit([15e-6, 10e-6, 0.93, 0.75, 0.75], times, measured, weights)
    return parameters(x), quantiles(times(x), points)


def main(arguments: Sequence[str]) -> int:
    """Fit all families and write their tables."""
    folder, out = Path(arguments[0]), Path(arguments[1])
    switch = fit_switch(folder)
    write_tables(
        out,
        switch,
        fit_engines(folder, switch[0].latency),
        fit_mesh(folder),
        fit_fabric(folder),
        fit_expert(folder),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
