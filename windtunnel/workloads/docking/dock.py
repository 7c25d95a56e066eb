"""One docking from start to end: field, search, exact ranking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.docking import field as grid
from windtunnel.workloads.docking.field import Box
from windtunnel.workloads.docking.forces import FromAtoms, FromField, Within, both
from windtunnel.workloads.docking.interaction import ROTOR
from windtunnel.workloads.docking.pose import Kinematics
from windtunnel.workloads.docking.refine import Ranked, rank
from windtunnel.workloads.docking.search import Budget, search
from windtunnel.workloads.docking.structure import Atoms, Ligand

SPACING_ANGSTROM = 0.375  # Vina's


@dataclass(frozen=True, slots=True)
class Score:
    """A pose as it is, kcal/mol: with the receptor, within the ligand, and the affinity that Vina prints."""

    with_receptor: float
    within_ligand: float
    affinity: float


def box_around(ligand: Ligand, margin_angstrom: float) -> Box:
    """A box that leaves ``margin_angstrom`` on every side of the ligand as it was read."""
    low, high = ligand.atoms.positions.min(0), ligand.atoms.positions.max(0)
    x, y, z = (low + high) / 2
    dx, dy, dz = high - low + 2 * margin_angstrom
    return Box((float(x), float(y), float(z)), (float(dx), float(dy), float(dz)))


def score(receptor: Atoms, ligand: Ligand, dtype: torch.dtype = torch.float64) -> Score:
    """The exact score of the ligand where it lies."""
    cpu = torch.device("cpu")
    box = box_around(ligand, 1.0)
    atoms = torch.as_tensor(ligand.atoms.positions, dtype=dtype)[None]
    outside = FromAtoms(receptor, ligand, box, cpu, dtype)(atoms)[0].item()
    inside = Within(ligand, cpu, dtype)(atoms)[0].item()
    return Score(outside, inside, outside / (1 + ROTOR * ligand.rotors))


def dock(
    receptor: Atoms,
    ligand: Ligand,
    box: Box,
    budget: Budget,
    seed: int,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    spacing_angstrom: float = SPACING_ANGSTROM,
    exact: bool = True,
    done: Callable[[int], None] = lambda round_number: None,
) -> Ranked:
    """Poses of ``ligand`` in ``box``, best first; the start does not depend on the pose it was read in.

    Raises:
        WindtunnelError: E977, no receptor atom is near the box; E978, energies that are no numbers.
    """
    _check_box(receptor, box)
    kinematics = Kinematics(ligand, device, dtype)
    field = grid.build(receptor, ligand.atoms.kinds, box, spacing_angstrom, device, dtype)
    inside = Within(ligand, device, dtype)
    generator = torch.Generator().manual_seed(seed)
    found = search(kinematics, both(FromField(field, ligand), inside), box, budget, generator, done)
    outside = FromAtoms(receptor, ligand, box, device, dtype) if exact else FromField(field, ligand)
    ranked = rank(found, kinematics, outside, inside, ligand.rotors, exact=exact)
    if not bool(torch.isfinite(ranked.total).all()):
        raise WindtunnelError(
            "E978",
            "the search ended in energies that are no numbers",
            values={"precision": str(dtype).removeprefix("torch."), "poses": len(ranked.total)},
            hint="--precision float32",
        )
    return ranked


def _check_box(receptor: Atoms, box: Box) -> None:
    apart = np.abs(receptor.positions - np.array(box.centre)) - np.array(box.size) / 2
    if (nearest := float(apart.max(1).min())) > 0:
        raise WindtunnelError(
            "E977",
            "no atom of the receptor lies in the box",
            values={
                "box": f"centre {box.centre}, size {box.size} Å",
                "nearest atom": f"{nearest:.1f} Å outside of it",
                "receptor": f"{receptor.positions.min(0).round(1)} to {receptor.positions.max(0).round(1)}",
            },
            hint="give --centre inside the receptor, or --around LIGAND.pdbqt",
        )
