"""From many found poses to a short, exact ranking.

Grid energies rank badly (flipped poses lie within a few tenths of a kcal/mol), so the best poses that differ are
slid downhill in the exact energy and ranked by it. The affinity is Vina's: what the pose holds with the receptor,
over 1 + ``ROTOR`` × rotatable bonds, with the best pose's own energy taken as that of the free ligand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.workloads.docking.forces import EnergyAndSlope, both
from windtunnel.workloads.docking.interaction import ROTOR
from windtunnel.workloads.docking.pose import Kinematics
from windtunnel.workloads.docking.search import KEPT, Found, differing, minimise

CANDIDATES, CANDIDATES_APART_ANGSTROM = 64, 0.5
"""What is refined: several poses of one place too, since the field's favourite there need not be the exact one."""
STEPS = 150


@dataclass(frozen=True, slots=True)
class Ranked:
    """Poses, best first.

    Attributes:
        atoms: (poses, n, 3) in Å, on the CPU.
        total: (poses,) kcal/mol, with the receptor and within the ligand: what ranks them.
        affinity: (poses,) kcal/mol as Vina prints it.
    """

    atoms: Tensor
    total: Tensor
    affinity: Tensor


def rank(
    found: Found,
    kinematics: Kinematics,
    outside: EnergyAndSlope,
    inside: EnergyAndSlope,
    rotors: float,
    *,
    exact: bool = True,
) -> Ranked:
    """Keep the best poses that differ, refine them by ``outside`` + ``inside``, rank and merge again.

    ``exact=False`` ranks without refining, to see what that loses.
    """
    pose = found.pose[torch.argsort(found.energy)]
    pose = pose[differing(kinematics.atoms(pose), CANDIDATES, CANDIDATES_APART_ANGSTROM)]
    if exact:
        pose, _ = minimise(kinematics, both(outside, inside), pose, STEPS)
    atoms = kinematics.atoms(pose)
    holds, strain = outside(atoms)[0], inside(atoms)[0]
    order = torch.argsort(holds + strain)
    atoms, holds, strain = atoms[order], holds[order], strain[order]
    kept = differing(atoms, KEPT)
    atoms, holds, strain = (t[kept] for t in (atoms, holds, strain))
    bound = holds + strain - strain[:1]
    return Ranked(atoms.cpu(), (holds + strain).cpu(), (bound / (1 + ROTOR * rotors)).cpu())
