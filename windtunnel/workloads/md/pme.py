"""Reciprocal part of the Ewald sum on a mesh: smooth particle-mesh Ewald (Essmann et al., J. Chem. Phys. 103, 8577).

Charges are spread with B-splines, one real transform there and back gives the potential on the mesh, and the same
splines and their derivatives read potential and force. Batched over replicas that share one box.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

ORDER = 5


class ParticleMesh(nn.Module):
    """Mesh, splines and influence function of one box.

    Args:
        box_nm: edges (3,). grid: mesh points along each edge. alpha: splitting parameter, 1/nm.
        coulomb: 1 ÷ (4π ε₀). replicas: systems side by side.
    """

    influence: Tensor
    scale: Tensor
    first_cell: Tensor
    reach: Tensor
    edges: Tensor

    def __init__(
        self,
        box_nm: np.ndarray[tuple[int], np.dtype[np.float64]],
        grid: tuple[int, int, int],
        alpha: float,
        coulomb: float,
        replicas: int,
        atoms: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.replicas = replicas
        self.register_buffer("influence", torch.from_numpy(_influence(box_nm, grid, alpha, coulomb)))
        self.register_buffer(
            "scale", torch.tensor([n / edge for n, edge in zip(grid, box_nm)], dtype=torch.float64)
        )
        cells = math.prod(grid)
        self.register_buffer("first_cell", torch.arange(replicas).repeat_interleave(atoms) * cells)
        self.register_buffer("reach", torch.arange(ORDER))
        self.register_buffer("edges", torch.tensor(grid))

    def forward(self, x: Tensor, charges: Tensor, forces: Tensor) -> Tensor:
        """Adds to ``forces`` (replicas × atoms, 3); the energy of each replica (replicas,)."""
        u = x * self.scale
        base = torch.floor(u)
        weights, slopes = _splines((u - base).to(forces.dtype))  # (3, ORDER, atoms)
        cell = torch.remainder(base.long()[:, :, None] + self.reach, self.edges[:, None])
        gx, gy, gz = self.grid
        plane = self.first_cell[:, None] + cell[:, 0] * (gy * gz)
        row = plane[:, :, None] + (cell[:, 1] * gz)[:, None, :]
        index = (row[:, :, :, None] + cell[:, 2][:, None, None, :]).reshape(-1)
        wx, wy, wz = (weights[axis].t() for axis in range(3))
        wyz = wy[:, :, None] * wz[:, None, :]
        mesh = torch.zeros(self.replicas * gx * gy * gz, dtype=forces.dtype, device=x.device)
        spread = (charges[:, None] * wx)[:, :, None, None] * wyz[:, None]
        mesh.index_add_(0, index, spread.reshape(-1))
        spectrum = torch.fft.rfftn(mesh.view(self.replicas, gx, gy, gz), dim=(1, 2, 3))
        potential = torch.fft.irfftn(spectrum * self.influence, s=self.grid, dim=(1, 2, 3), norm="forward")
        near = potential.reshape(-1).index_select(0, index).view(-1, ORDER, ORDER, ORDER)
        dx, dy, dz = (slopes[axis].t() for axis in range(3))
        along_z = torch.stack([(near * wz[:, None, None]).sum(3), (near * dz[:, None, None]).sum(3)])
        on_y = (along_z * wy[:, None]).sum(3)
        field = torch.stack(
            [
                (on_y[0] * dx).sum(1),
                ((along_z[0] * dy[:, None]).sum(2) * wx).sum(1),
                (on_y[1] * wx).sum(1),
            ],
            dim=1,
        )
        forces.sub_(charges[:, None] * field * self.scale.to(forces.dtype))
        at_atoms = charges * (on_y[0] * wx).sum(1)
        return 0.5 * at_atoms.view(self.replicas, -1).double().sum(1)


def _splines(fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and their derivatives of the ORDER points from the atom's own, (3, ORDER, atoms)."""
    w = fraction.t()
    values = [1.0 - w, w]
    for order in range(3, ORDER):
        values = _raised(values, w, order)
    zero = torch.zeros_like(w)
    slopes = [left - right for left, right in zip([zero, *values], [*values, zero], strict=True)]
    values = _raised(values, w, ORDER)
    return torch.stack(values, 1), torch.stack(slopes, 1)


def _raised(values: list[Tensor], w: Tensor, order: int) -> list[Tensor]:
    """Splines of ``order`` from those of one order less (recursion of cardinal B-splines)."""
    scale = 1.0 / (order - 1)
    raised = [scale * (1.0 - w) * values[0]]
    raised += [
        scale * ((w + (order - 1 - k)) * values[k - 1] + (k + 1 - w) * values[k]) for k in range(1, order - 1)
    ]
    return [*raised, scale * w * values[-1]]


def _influence(
    box_nm: np.ndarray[tuple[int], np.dtype[np.float64]],
    grid: tuple[int, int, int],
    alpha: float,
    coulomb: float,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """B × C of the smooth method for the half-complex transform, (gx, gy, gz // 2 + 1); 0 at the origin."""
    gz = grid[2]
    m = [np.fft.fftfreq(n, 1.0 / n) / edge for n, edge in zip(grid, box_nm)]
    m2 = m[0][:, None, None] ** 2 + m[1][None, :, None] ** 2 + (m[2][None, None, : gz // 2 + 1]) ** 2
    m2[0, 0, 0] = 1.0
    volume = float(np.prod(box_nm))
    c = coulomb / (np.pi * volume) * np.exp(-((np.pi / alpha) ** 2) * m2) / m2
    c[0, 0, 0] = 0.0
    b = [_moduli(n) for n in grid]
    return np.asarray(c / (b[0][:, None, None] * b[1][None, :, None] * b[2][None, None, : gz // 2 + 1]))


def _moduli(points: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """|Euler spline|² of each frequency; where it vanishes, the mean of its neighbours is taken."""
    half = torch.zeros(1, 3, dtype=torch.float64)
    weights = _splines(half)[0][0, :, 0].numpy()
    spline = np.zeros(points)
    np.add.at(spline, np.arange(ORDER) % points, weights)
    moduli = np.abs(np.fft.fft(spline)) ** 2
    for k in np.flatnonzero(moduli < 1e-7):
        moduli[k] = 0.5 * (moduli[k - 1] + moduli[(k + 1) % points])
    return moduli
