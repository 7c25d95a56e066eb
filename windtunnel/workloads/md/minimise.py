"""Steepest descent with a step that grows on success and shrinks on failure, as GROMACS does it."""

from __future__ import annotations

import torch

from windtunnel.workloads.md.integrate import Dynamics

START_NM = 0.01
GROW, SHRINK = 1.2, 0.2


def minimise(dynamics: Dynamics, steps: int) -> tuple[float, float]:
    """Move atoms downhill for ``steps`` trials; potential energies before and after, all replicas, kJ/mol."""
    best = first = float(dynamics.energies().total.sum())
    x, forces, reach = dynamics.x, dynamics.forces, START_NM
    for _ in range(steps):
        largest = float(forces.norm(dim=1).max())
        if largest == 0.0 or reach < 1e-8:
            break
        trial = dynamics.constraints.positions(x, x + forces * (reach / largest))
        dynamics.x = trial
        if float((trial - dynamics.list.positions).norm(dim=1).max()) > 0.5 * dynamics.field.skin_nm:
            dynamics.renew()
        found, energies = dynamics.field(trial, dynamics.pairs)
        energy = float(energies.total.sum())
        if energy < best and torch.isfinite(found).all():
            best, x, forces, reach = energy, trial, found.double(), reach * GROW
        else:
            reach *= SHRINK
    dynamics.x, dynamics.forces = x, forces
    dynamics.renew()
    return first, best
