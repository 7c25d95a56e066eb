"""What a pose costs in energy: the ligand with itself, and with the receptor by field or atom by atom.

All of them answer ``(energy, slope)``: kcal/mol of each copy (copies,) and its gradient (copies, n, 3).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from windtunnel.workloads.docking.field import Box, Field
from windtunnel.workloads.docking.interaction import CUTOFF
from windtunnel.workloads.docking.kinds import BOND_ALLOWANCE, COVALENT_RADIUS, KINDS, METAL_RADIUS
from windtunnel.workloads.docking.pose import Kinematics, Pose
from windtunnel.workloads.docking.structure import Atoms, Ligand
from windtunnel.workloads.docking.table import PairTable

EnergyAndSlope = Callable[[Tensor], tuple[Tensor, Tensor]]
_NEAREST = 1e-3  # Å: keeps the direction between two atoms finite
_FAR_BONDS = 3  # pairs within this many bonds do not interact


class Within:
    """A ligand with itself: pairs more than three bonds apart whose distance torsions change."""

    def __init__(self, ligand: Ligand, device: torch.device, dtype: torch.dtype) -> None:
        first, second = _changing_pairs(ligand)
        kinds = ligand.atoms.kinds
        self._table = PairTable(device, dtype)
        self._rows = self._table.rows(kinds[first], kinds[second])
        self._first, self._second = (torch.from_numpy(index).to(device) for index in (first, second))
        incidence = np.zeros((len(first), len(ligand.atoms.kinds)))
        incidence[np.arange(len(first)), first] = 1.0
        incidence[np.arange(len(first)), second] = -1.0
        self._incidence = torch.as_tensor(incidence, dtype=dtype).to(device)

    def __call__(self, atoms: Tensor) -> tuple[Tensor, Tensor]:
        along = atoms.transpose(1, 2).contiguous()  # (copies, 3, n): the last product is then one plain GEMM
        between = along[..., self._first] - along[..., self._second]
        r = _length(between)
        energy, slope = self._table.read(r, self._rows)
        return energy.sum(-1), ((slope / r)[:, None] * between @ self._incidence).transpose(1, 2)


class FromField:
    """The receptor as interpolated field: fast, and off by up to 1 kcal/mol in a whole pose."""

    def __init__(self, field: Field, ligand: Ligand) -> None:
        self._field = field
        self._rows = field.rows(ligand.atoms.kinds)

    def __call__(self, atoms: Tensor) -> tuple[Tensor, Tensor]:
        return self._field.read(atoms, self._rows)


class FromAtoms:
    """The receptor atom by atom: exact. Only atoms that some ligand atom in the box can feel are kept."""

    def __init__(
        self, receptor: Atoms, ligand: Ligand, box: Box, device: torch.device, dtype: torch.dtype
    ) -> None:
        inside = np.abs(receptor.positions - np.array(box.centre)) < np.array(box.size) / 2 + CUTOFF
        near = inside.all(1)
        self._table = PairTable(device, dtype)
        self._rows = self._table.rows(ligand.atoms.kinds[:, None], receptor.kinds[near][None])
        self._receptor = torch.as_tensor(receptor.positions[near], dtype=dtype).to(device)

    def __call__(self, atoms: Tensor) -> tuple[Tensor, Tensor]:
        between = atoms.transpose(1, 2)[..., None] - self._receptor.T[:, None]
        r = _length(between)
        energy, slope = self._table.read(r, self._rows)
        return energy.sum((-1, -2)), ((slope / r)[:, None] * between).sum(-1).transpose(1, 2)


def _length(between: Tensor) -> Tensor:
    """Distances from components along dimension 1 (``norm`` over three numbers is ten times slower on a CPU)."""
    x, y, z = between.unbind(1)
    return (x * x + y * y + z * z).clamp(min=_NEAREST**2).sqrt()


def both(first: EnergyAndSlope, second: EnergyAndSlope) -> EnergyAndSlope:
    """The sum of two energies."""

    def total(atoms: Tensor) -> tuple[Tensor, Tensor]:
        (e1, g1), (e2, g2) = first(atoms), second(atoms)
        return e1 + e2, g1 + g2

    return total


def _changing_pairs(ligand: Ligand) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that torsions move against each other, found by turning them: no case analysis of the tree."""
    first, second = np.triu_indices(len(ligand.atoms.kinds), 1)
    if not ligand.torsions or not len(first):
        return first[:0], second[:0]
    cpu = Kinematics(ligand, torch.device("cpu"), torch.float64)
    pose = cpu.start(4)
    angles = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, (4, len(ligand.torsions))))
    turned = cpu.atoms(Pose(pose.shift, pose.quaternion, angles)).numpy()
    apart = np.linalg.norm(turned[:, first] - turned[:, second], axis=-1)
    far = _bonds_between(ligand)[first, second] > _FAR_BONDS
    keep = (np.ptp(apart, axis=0) > 1e-6) & far
    return first[keep], second[keep]


def _bonds_between(ligand: Ligand) -> np.ndarray:
    """(n, n) number of bonds between atoms, up to ``_FAR_BONDS``; more counts as one more."""
    positions, kinds = ligand.atoms.positions, ligand.atoms.kinds
    symbols = [KINDS[kind].name.split("_")[0].upper() for kind in kinds]
    radius = np.array([COVALENT_RADIUS.get(symbol, METAL_RADIUS) for symbol in symbols])
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    bonded = (apart < BOND_ALLOWANCE * (radius[:, None] + radius[None])).astype(int)
    reached = np.eye(len(kinds), dtype=int)
    count = np.full(bonded.shape, _FAR_BONDS + 1)
    for bonds in range(_FAR_BONDS + 1):
        count = np.where((reached > 0) & (count > bonds), bonds, count)
        reached = reached @ bonded + reached
    return count
