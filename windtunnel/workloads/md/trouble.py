"""What can go wrong with a system in motion, said with step and atom."""

from __future__ import annotations

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md.forces import ForceField
from windtunnel.workloads.md.system import MolecularSystem

OVERLAP_NM = 0.03
"""Closest that two atoms which interact may start: less than half the shortest bond."""
LEAP_NM = 0.15
"""Farthest that an atom may move in one step: the length of a bond."""


def check_start(field: ForceField, x: Tensor) -> None:
    """Raises WindtunnelError E941 where two atoms that interact lie on top of each other, E940 for coordinates that are
    not numbers."""
    system = field.system
    nowhere = torch.isnan(x) | torch.isinf(x)
    if bool(nowhere.any()):
        atom = int(nowhere.any(1).nonzero()[0, 0]) % system.atoms
        raise WindtunnelError(
            "E940",
            f"the coordinates of {system.names[atom]} are not numbers",
            hint="repair the structure file",
        )
    found = field.finder.find(x)
    d = x[found.second] - x[found.first]
    if field.box is not None:
        d = d - field.box * torch.round(d / field.box)
    r2 = torch.where(found.first == found.second, 1.0, (d * d).sum(1))
    if len(r2) and bool(r2.min() < OVERLAP_NM**2):
        worst = int(r2.argmin())
        i, j = (int(side[worst]) % system.atoms for side in (found.first, found.second))
        raise WindtunnelError(
            "E941",
            f"{system.names[i]} and {system.names[j]} overlap",
            hint="rebuild the structure; --minimize moves atoms apart that are merely close",
            values={"distance_nm": f"{float(r2.min().sqrt()):.4f}", "atoms": f"{i}, {j}"},
        )


def check_motion(system: MolecularSystem, before: Tensor, after: Tensor, step: int) -> None:
    """Raises WindtunnelError E944 where an atom leapt, or is nowhere, in the step from ``before`` to ``after``."""
    leap = (after - before).norm(dim=1)
    lost = torch.isnan(leap) | torch.isinf(leap)
    bad = (leap > LEAP_NM) | lost
    if not bool(bad.any()):
        return
    atom = int(lost.nonzero()[0, 0]) if bool(lost.any()) else int(leap.argmax())
    how = "has no position any more" if bool(lost.any()) else f"moved {float(leap[atom]):.2f} nm in one step"
    replica, atom = divmod(atom, system.atoms)
    raise WindtunnelError(
        "E944",
        f"the motion exploded in step {step:,}: {system.names[atom]} {how}",
        hint="take a shorter --step-fs, or --minimize the structure first",
        values={"step": step, "atom": atom, "replica": replica, "atoms_too_fast": int(bad.sum())},
    )
