"""Poses of a flexible ligand: position, orientation and torsion angles of many copies at once.

Every fragment between rotatable bonds turns as its parent does and then about its own bond, so a pose costs one
batched product of 3 × 3 matrices for each level of the torsion tree. Gradients go back the closed way: the force
on a set of atoms turned about an axis does the work axis · Σ (x - o) × g.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windtunnel.workloads.docking.structure import Ligand


@dataclass(frozen=True, slots=True)
class Pose:
    """Copies of one ligand: ``shift`` (copies, 3) in Å, ``quaternion`` (copies, 4), ``angles`` (copies, torsions)."""

    shift: Tensor
    quaternion: Tensor
    angles: Tensor

    def __getitem__(self, index: Tensor) -> Pose:
        return Pose(self.shift[index], self.quaternion[index], self.angles[index])

    def where(self, chosen: Tensor, other: Pose) -> Pose:
        """Copies of ``other`` where ``chosen`` (copies,) is true, else our own."""
        pick = chosen[:, None]
        return Pose(
            torch.where(pick, other.shift, self.shift),
            torch.where(pick, other.quaternion, self.quaternion),
            torch.where(pick, other.angles, self.angles),
        )

    def moved(self, step: Tensor, length_angstrom: float) -> Pose:
        """The pose after ``step`` (copies, 6 + torsions): shift, turn × length, angles × length, all in Å."""
        turn = step[:, 3:6] / length_angstrom
        turned = quaternion_product(from_rotation_vector(turn), self.quaternion)
        return Pose(self.shift + step[:, :3], turned, self.angles + step[:, 6:] / length_angstrom)


class Kinematics:
    """A ligand's torsion tree on a device; turns poses into atoms and atom gradients into pose gradients."""

    def __init__(self, ligand: Ligand, device: torch.device, dtype: torch.dtype) -> None:
        start = ligand.atoms.positions
        self.centre = start.mean(0)
        rest = start - self.centre
        fragment = _fragments(ligand)
        parents = _parents(ligand, fragment)
        depth = [0]
        for parent in parents[1:]:
            depth.append(depth[parent] + 1)
        # Fragments are put in order of depth, so that one level is one slice.
        order = sorted(range(len(depth)), key=depth.__getitem__)
        place = {old: new for new, old in enumerate(order)}
        near = np.array([t.near for t in ligand.torsions], int)
        far = np.array([t.far for t in ligand.torsions], int)
        axis = rest[far] - rest[near]
        axis = axis / np.linalg.norm(axis, axis=1, keepdims=True) if len(axis) else axis
        torsion = [f - 1 for f in order[1:]]

        def floats(values: object) -> Tensor:
            return torch.as_tensor(values, dtype=dtype).to(device)

        def integers(values: object) -> Tensor:
            return torch.as_tensor(values, dtype=torch.int64).to(device)

        self.device, self.dtype = device, dtype
        self.num_torsions = len(ligand.torsions)
        self.num_atoms = len(rest)
        self._level_sizes = [depth.count(level) for level in range(1, max(depth) + 1)]
        self._parents = [place[parents[f]] for f in order]
        self._parent = integers(self._parents)
        self._torsion = integers(torsion)
        pivot = np.vstack([np.zeros(3), rest[far]]) if len(far) else np.zeros((1, 3))
        self._pivot = floats(pivot[order])
        self._axis = floats(axis[torsion])
        self._fragment = integers([place[f] for f in fragment])
        self._offset = floats(rest - pivot[fragment])
        self._near, self._far = integers(near), integers(far)
        held = rest[far[np.array(parents[1:]) == 0]] if len(far) else rest[:0]
        across = held[-1] - held[0] if len(held) > 1 else np.zeros(3)
        across = across / max(float(np.linalg.norm(across)), 1e-9)
        self.spins = floats(_spins(parents, np.vstack([across, axis])))
        self.root_axis = floats(across)
        self.root_pivot = floats(held[0] if len(held) else np.zeros(3))
        moved = np.zeros((len(ligand.torsions), len(rest)))
        for row, t in enumerate(ligand.torsions):
            moved[row, list(t.moved)] = 1.0
        self._moved = floats(moved)
        self.length_angstrom = float(np.sqrt((rest**2).sum(1).mean())) or 1.0

    def atoms(self, pose: Pose) -> Tensor:
        """Positions (copies, n, 3) in Å of the atoms of ``pose``."""
        turns = rotation_matrix(pose.quaternion)[:, None]
        origins = pose.shift[:, None]
        if self.num_torsions:
            own = about_axis(self._axis, pose.angles[:, self._torsion])
            first = 1
            for size in self._level_sizes:
                level = slice(first, first + size)
                parent = self._parent[level]
                arm = (self._pivot[level] - self._pivot[parent])[None, ..., None]
                turned = turns[:, parent]
                origins = torch.cat((origins, origins[:, parent] + (turned @ arm)[..., 0]), 1)
                turns = torch.cat((turns, turned @ own[:, first - 1 : first - 1 + size]), 1)
                first += size
        arms = (turns[:, self._fragment] @ self._offset[None, ..., None])[..., 0]
        return origins[:, self._fragment] + arms

    def gradient(self, atoms: Tensor, slope: Tensor, pose: Pose) -> Tensor:
        """(copies, 6 + torsions) gradient for ``Pose.moved`` steps, from ``slope`` (copies, n, 3) at ``atoms``."""
        from_shift = atoms - pose.shift[:, None]
        torque = torch.linalg.cross(from_shift, slope)
        parts = [slope.sum(1), torque.sum(1) / self.length_angstrom]
        if self.num_torsions:
            pull, twist = self._moved @ slope, self._moved @ torque
            far = from_shift[:, self._far]
            axis = far - from_shift[:, self._near]
            axis = axis / axis.norm(dim=-1, keepdim=True)
            about = twist - torch.linalg.cross(far, pull)
            parts.append((axis * about).sum(-1) / self.length_angstrom)
        return torch.cat(parts, 1)

    def start(self, copies: int) -> Pose:
        """Copies of the pose as it was read."""
        shift = torch.as_tensor(self.centre, dtype=self.dtype).to(self.device).expand(copies, 3).clone()
        quaternion = torch.zeros((copies, 4), dtype=self.dtype, device=self.device)
        quaternion[:, 0] = 1.0
        angles = torch.zeros((copies, self.num_torsions), dtype=self.dtype, device=self.device)
        return Pose(shift, quaternion, angles)


def _fragments(ligand: Ligand) -> list[int]:
    """Which rigid fragment each atom is in: 0 the root, k + 1 what torsion k moves innermost."""
    fragment = [0] * len(ligand.atoms.positions)
    for number, torsion in enumerate(ligand.torsions, 1):  # children come later and overwrite
        for atom in torsion.moved:
            fragment[atom] = number
    return fragment


def _spins(parents: list[int], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(fragments, torsions) how torsions change when one fragment turns and those it holds stay where they were.

    The fragment turns about its bond to the parent (``axes``; row 0: the root, about the line between what it holds);
    the bonds to its children turn back by as much as they point the same way.
    """
    spins = np.zeros((len(parents), len(parents) - 1))
    for torsion, parent in enumerate(parents[1:]):
        spins[torsion + 1, torsion] = 1.0
        spins[parent, torsion] -= float(axes[parent] @ axes[torsion + 1])
    return spins


def _parents(ligand: Ligand, fragment: list[int]) -> list[int]:
    return [0, *(fragment[torsion.near] for torsion in ligand.torsions)]


def rotation_matrix(q: Tensor) -> Tensor:
    """(…, 3, 3) of unit quaternions (…, 4)."""
    w, x, y, z = q.unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, -1).reshape(*q.shape[:-1], 3, 3)


def about_axis(axis: Tensor, angle: Tensor) -> Tensor:
    """(…, k, 3, 3) rotation by ``angle`` (…, k) about unit ``axis`` (k, 3)."""
    half = angle / 2
    return rotation_matrix(torch.cat((half.cos()[..., None], half.sin()[..., None] * axis), -1))


def from_rotation_vector(vector: Tensor) -> Tensor:
    """Unit quaternions (…, 4) that turn by |vector| radians about ``vector`` (…, 3)."""
    angle = vector.norm(dim=-1, keepdim=True)
    ratio = torch.sinc(angle / (2 * torch.pi)) / 2  # sin(angle / 2) / angle, also at zero
    return torch.cat(((angle / 2).cos(), ratio * vector), -1)


def quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """a · b, made unit again so that rounding does not add up: first ``b`` turns, then ``a``."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    w = aw * bw - (av * bv).sum(-1, keepdim=True)
    product = torch.cat((w, aw * bv + bw * av + torch.linalg.cross(av, bv)), -1)
    return torch.nn.functional.normalize(product, dim=-1)
