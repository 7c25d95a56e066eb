"""The receptor as a field: for each kind of ligand atom, its energy on a grid, read by trilinear interpolation.

Building it costs every receptor atom near every grid point once; a pose then costs eight reads an atom instead of
thousands of pairs. The interpolated field is up to 1 kcal/mol off in a whole pose, so poses are scored exactly in
the end (``refine.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from windtunnel.workloads.docking.interaction import CUTOFF
from windtunnel.workloads.docking.structure import Atoms
from windtunnel.workloads.docking.table import PairTable

OUTSIDE_SLOPE = 10.0  # kcal/mol/Å for an atom outside of the box: far steeper than anything inside
_BLOCK = 8  # grid points a side that share one list of near receptor atoms


@dataclass(frozen=True, slots=True)
class Box:
    """Where to search: centre (x, y, z) and edge lengths, in Å."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]

    @property
    def low(self) -> np.ndarray:
        """The corner with the lowest coordinates."""
        return np.array(self.centre) - np.array(self.size) / 2


@dataclass(frozen=True, slots=True)
class Field:
    """Energies of one receptor on a grid.

    Attributes:
        values: (kinds, x, y, z) flattened, kcal/mol, on the device.
        shape: points along x, y and z.
        low: (3,) position of the first point, Å.
        spacing_angstrom: distance of neighbouring points.
        row_of_kind: which of ``values``' first dimension holds an atom kind.
    """

    values: Tensor
    shape: tuple[int, int, int]
    low: Tensor
    spacing_angstrom: float
    row_of_kind: dict[int, int]

    def rows(self, kinds: np.ndarray) -> Tensor:
        """(n,) offset into ``values`` of the grid of each atom."""
        points = self.shape[0] * self.shape[1] * self.shape[2]
        rows = [self.row_of_kind[int(kind)] * points for kind in kinds]
        return torch.tensor(rows, device=self.values.device)

    def read(self, positions: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (copies,) and its gradient (copies, n, 3) of atoms at ``positions`` (copies, n, 3)."""
        last = torch.tensor([n - 1 for n in self.shape], dtype=positions.dtype, device=positions.device)
        scaled = (positions - self.low) / self.spacing_angstrom
        inside = torch.minimum(scaled.clamp(min=0.0), last)
        out = scaled - inside
        cell = torch.minimum(inside.floor(), last - 1.0)
        x, y, z = (inside - cell).unbind(-1)
        corners = self._corners(cell.long(), rows)
        low, step_x = corners[..., 0, :, :], corners[..., 1, :, :] - corners[..., 0, :, :]
        plane = low + x[..., None, None] * step_x
        line, step_y = _along(plane, y)
        slope_x = _bilinear(step_x, y, z)
        slope_y = step_y[..., 0] + z * (step_y[..., 1] - step_y[..., 0])
        slope_z = line[..., 1] - line[..., 0]
        value = line[..., 0] + z * slope_z
        gradient = torch.stack((slope_x, slope_y, slope_z), -1) * (out == 0) / self.spacing_angstrom
        penalty = OUTSIDE_SLOPE * self.spacing_angstrom * out.abs().sum(-1)
        return (value + penalty).sum(-1), gradient + OUTSIDE_SLOPE * out.sign()

    def _corners(self, cell: Tensor, rows: Tensor) -> Tensor:
        """The eight values around each atom, (copies, n, 2, 2, 2)."""
        _, ny, nz = self.shape
        first = rows + (cell[..., 0] * ny + cell[..., 1]) * nz + cell[..., 2]
        steps = [x * ny * nz + y * nz + z for x in (0, 1) for y in (0, 1) for z in (0, 1)]
        offsets = torch.tensor(steps, device=cell.device)
        return self.values[first[..., None] + offsets].reshape(*first.shape, 2, 2, 2)


def _along(plane: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    step = plane[..., 1, :] - plane[..., 0, :]
    return plane[..., 0, :] + y[..., None] * step, step


def _bilinear(plane: Tensor, y: Tensor, z: Tensor) -> Tensor:
    line, _ = _along(plane, y)
    return line[..., 0] + z * (line[..., 1] - line[..., 0])


def build(
    receptor: Atoms,
    ligand_kinds: np.ndarray,
    box: Box,
    spacing_angstrom: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Field:
    """Sum the pair energies of each kind of ligand atom with all receptor atoms, block by block of the grid."""
    shape = tuple(int(np.ceil(edge / spacing_angstrom)) + 1 for edge in box.size)
    nx, ny, nz = shape
    present = np.unique(ligand_kinds)
    table = PairTable(device, dtype)
    values = torch.zeros((len(present), nx, ny, nz), dtype=dtype, device=device)
    reach = CUTOFF + spacing_angstrom * (_BLOCK - 1) * np.sqrt(3) / 2
    for start in np.ndindex(*(-(-n // _BLOCK) for n in shape)):
        slices = tuple(slice(s * _BLOCK, min((s + 1) * _BLOCK, n)) for s, n in zip(start, shape))
        axes = [box.low[a] + spacing_angstrom * np.arange(s.start, s.stop) for a, s in enumerate(slices)]
        middle = np.array([axis.mean() for axis in axes])
        near = np.linalg.norm(receptor.positions - middle, axis=1) < reach
        if not near.any():
            continue
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        here = torch.as_tensor(points, dtype=dtype).to(device)
        atoms = torch.as_tensor(receptor.positions[near], dtype=dtype).to(device)
        r = torch.cdist(here, atoms, compute_mode="donot_use_mm_for_euclid_dist")
        rows = table.rows(present[:, None, None], receptor.kinds[near])
        block = table.read(r, rows)[0].sum(-1)
        values[(slice(None), *slices)] = block.reshape(-1, *(len(axis) for axis in axes))
    low = torch.as_tensor(box.low, dtype=dtype).to(device)
    return Field(
        values.reshape(-1), (nx, ny, nz), low, spacing_angstrom, {int(k): i for i, k in enumerate(present)}
    )
