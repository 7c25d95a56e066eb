"""Where does the ligand fit? Many copies at once: Monte-Carlo moves, each followed by gradient steps.

As DSDP does it (Y. Huang et al., J. Chem. Inf. Model. 63 (2023) 4355): every copy changes its position, its
orientation or one torsion at random, slides downhill by Barzilai-Borwein steps, and keeps the result by Metropolis'
rule; half-way the search goes on from the best poses that differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.workloads.docking.field import Box
from windtunnel.workloads.docking.forces import EnergyAndSlope
from windtunnel.workloads.docking.pose import (
    Kinematics,
    Pose,
    from_rotation_vector,
    quaternion_product,
    rotation_matrix,
)

TEMPERATURE_KCAL = 1.1923  # 1 / 0.8387, DSDP's setting
LONGEST_STEP_ANGSTROM = 0.3
FIRST_STEP = 0.002  # Å per kcal/mol/Å, before there is a curvature to go by
APART_ANGSTROM = 2.0  # poses nearer than this, atom by atom, are one
KEPT = 20  # poses that differ, kept to go on from
SHIFT_ANGSTROM = 2.0  # how far a move shifts a copy at most along each axis, or turns its outer atoms


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to search: copies × rounds × (gradient steps + 1) energies are computed."""

    copies: int = 384
    rounds: int = 24
    steps: int = 50


@dataclass(frozen=True, slots=True)
class Found:
    """The best pose of every copy, and its energy (copies,) in kcal/mol."""

    pose: Pose
    energy: Tensor


def minimise(kinematics: Kinematics, forces: EnergyAndSlope, pose: Pose, steps: int) -> tuple[Pose, Tensor]:
    """The lowest pose met on a Barzilai-Borwein descent, and its energy.

    The step length is s·s / |s·y| from the last step and change of gradient, never longer than
    ``LONGEST_STEP_ANGSTROM`` (J. Barzilai and J. M. Borwein, IMA J. Numer. Anal. 8 (1988) 141).
    """
    atoms = kinematics.atoms(pose)
    best_energy, slope = forces(atoms)
    gradient = kinematics.gradient(atoms, slope, pose)
    best, rate = pose, torch.full_like(best_energy, FIRST_STEP)
    for _ in range(steps):
        step = -rate[:, None] * gradient
        longest = step.norm(dim=1, keepdim=True)
        step = step * (LONGEST_STEP_ANGSTROM / longest.clamp(min=1e-12)).clamp(max=1.0)
        pose = pose.moved(step, kinematics.length_angstrom)
        atoms = kinematics.atoms(pose)
        value, slope = forces(atoms)
        fresh = kinematics.gradient(atoms, slope, pose)
        curvature = (step * (fresh - gradient)).sum(1).abs()
        rate = (step * step).sum(1) / curvature.clamp(min=1e-12)
        gradient = fresh
        lower = value < best_energy
        best, best_energy = best.where(lower, pose), torch.where(lower, value, best_energy)
    return best, best_energy


def search(
    kinematics: Kinematics,
    forces: EnergyAndSlope,
    box: Box,
    budget: Budget,
    generator: torch.Generator,
    done: Callable[[int], None] = lambda round_number: None,
) -> Found:
    """Search the box; ``done`` is called after every round."""
    example = kinematics.start(1)
    dice = Dice(generator, kinematics)
    pose, energy = minimise(kinematics, forces, dice.anywhere(example, box, budget.copies), budget.steps)
    best = Found(pose, energy)
    done(0)
    for number in range(1, budget.rounds):
        trial, trial_energy = minimise(kinematics, forces, dice.move(pose), budget.steps)
        accepted = dice.uniform(budget.copies) < torch.exp((energy - trial_energy) / TEMPERATURE_KCAL)
        pose, energy = pose.where(accepted, trial), torch.where(accepted, trial_energy, energy)
        lower = energy < best.energy
        best = Found(best.pose.where(lower, pose), torch.where(lower, energy, best.energy))
        if number == budget.rounds // 2:
            pose, energy = _from_the_best(best, kinematics, budget.copies)
        done(number)
    return best


def _from_the_best(best: Found, kinematics: Kinematics, copies: int) -> tuple[Pose, Tensor]:
    """All copies again, shared out over the best poses that differ."""
    order = torch.argsort(best.energy)
    chosen = order[differing(kinematics.atoms(best.pose[order]), KEPT)]
    chosen = chosen.repeat(-(-copies // len(chosen)))[:copies]
    return best.pose[chosen], best.energy[chosen]


def differing(atoms: Tensor, most: int, apart_angstrom: float = APART_ANGSTROM) -> Tensor:
    """Indices of up to ``most`` poses, in order, each ``apart_angstrom`` from those before it."""
    apart = torch.cdist(atoms.flatten(1), atoms.flatten(1)) / atoms.shape[1] ** 0.5
    near = (apart < apart_angstrom).cpu()
    chosen: list[int] = []
    taken = torch.zeros(len(near), dtype=torch.bool)
    for index in range(len(near)):
        if not bool(taken[index]):
            chosen.append(index)
            taken |= near[index]
        if len(chosen) == most:
            break
    return torch.tensor(chosen).to(atoms.device)


class Dice:
    """Random poses and moves, drawn on the CPU so that every device sees the same ones."""

    def __init__(self, generator: torch.Generator, kinematics: Kinematics) -> None:
        self._generator = generator
        self._kinematics = kinematics

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from 0 to 1 on the device."""
        drawn = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        return drawn.to(self._kinematics.dtype).to(self._kinematics.device)

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers on the device."""
        drawn = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        return drawn.to(self._kinematics.dtype).to(self._kinematics.device)

    def anywhere(self, example: Pose, box: Box, copies: int) -> Pose:
        """Copies at random places of the box, turned and twisted at random."""
        centre = example.shift.new_tensor(box.centre)
        size = example.shift.new_tensor(box.size)
        shift = centre + size * 0.8 * (self.uniform(copies, 3) - 0.5)
        turn = self.normal(copies, 4)
        angles = 2 * torch.pi * (self.uniform(copies, self._kinematics.num_torsions) - 0.5)
        return Pose(shift, turn / turn.norm(dim=1, keepdim=True), angles)

    def move(self, pose: Pose) -> Pose:
        """Each copy changes one thing: its place, its orientation, one torsion, or how one fragment is turned while
        its neighbours stay. The last reaches what single torsions cannot: they swing everything behind them.
        """
        copies, torsions = pose.angles.shape
        which = (self.uniform(copies) * (3 + 2 * torsions)).floor()[:, None]
        shift = SHIFT_ANGSTROM * (2 * self.uniform(copies, 3) - 1) * (which == 0)
        turn = self.normal(copies, 3) * (SHIFT_ANGSTROM / self._kinematics.length_angstrom) * (which == 1)
        angle = 2 * torch.pi * self.uniform(copies, 1)
        alone, spun = (
            self._one_of(which - first, count)
            for first, count in ((2, torsions), (2 + torsions, torsions + 1))
        )
        angles = pose.angles + angle * (alone + spun @ self._kinematics.spins)
        lines = torch.stack((self._kinematics.root_axis, self._kinematics.root_pivot), 1)
        axis, pivot = (rotation_matrix(pose.quaternion) @ lines).unbind(-1)
        turn = from_rotation_vector(turn + spun[:, :1] * angle * axis)
        # A root that turns in place does so about the line between what it holds, not about the ligand's middle.
        aside = pivot - (rotation_matrix(turn) @ pivot[..., None])[..., 0]
        return Pose(
            pose.shift + shift + spun[:, :1] * aside, quaternion_product(turn, pose.quaternion), angles
        )

    def _one_of(self, which: Tensor, count: int) -> Tensor:
        """(copies, count) ones where ``which`` (copies, 1) is the column, else zeros."""
        return (which == torch.arange(count, dtype=which.dtype).to(which.device)).to(which.dtype)
