"""Laws of poses and of energies: rigid pieces stay rigid, slopes are slopes, the field is the atoms' sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from windtunnel.workloads.docking.field import Box, build
from windtunnel.workloads.docking.forces import FromAtoms, FromField, Within, both
from windtunnel.workloads.docking.pose import Kinematics
from windtunnel.workloads.docking.search import Dice
from windtunnel.workloads.docking.structure import Atoms, Ligand

CPU, F64 = torch.device("cpu"), torch.float64
BOX = Box((15.2, 53.9, 16.9), (24.0, 24.0, 24.0))


@pytest.fixture(scope="module")
def kinematics(ligand: Ligand) -> Kinematics:
    return Kinematics(ligand, CPU, F64)


def test_the_pose_as_read_gives_the_atoms_back(kinematics: Kinematics, ligand: Ligand) -> None:
    atoms = kinematics.atoms(kinematics.start(2))
    assert np.abs(atoms.numpy() - ligand.atoms.positions).max() < 1e-12


def test_bonds_keep_their_length_and_torsions_turn(kinematics: Kinematics, ligand: Ligand) -> None:
    pose = Dice(torch.Generator().manual_seed(3), kinematics).anywhere(kinematics.start(1), BOX, 16)
    atoms = kinematics.atoms(pose).numpy()
    before = np.linalg.norm(ligand.atoms.positions[:, None] - ligand.atoms.positions[None], axis=-1)
    after = np.linalg.norm(atoms[:, :, None] - atoms[:, None], axis=-1)
    bonded = (before < 1.7) & (before > 0)
    assert np.abs(after - before)[:, bonded].max() < 1e-10
    assert np.abs(after - before).max() > 2.0


def test_gradients_are_slopes_of_the_energy(kinematics: Kinematics, receptor: Atoms, ligand: Ligand) -> None:
    forces = both(FromAtoms(receptor, ligand, BOX, CPU, F64), Within(ligand, CPU, F64))
    pose = kinematics.start(1)
    step = torch.zeros(1, 6 + len(ligand.torsions), dtype=F64)
    pose = pose.moved(torch.full_like(step, 0.05), kinematics.length_angstrom)
    atoms = kinematics.atoms(pose)
    gradient = kinematics.gradient(atoms, forces(atoms)[1], pose)[0]
    for place in range(step.shape[1]):
        nudge = step.clone()
        nudge[0, place] = 2e-5
        ahead, behind = (
            forces(kinematics.atoms(pose.moved(sign * nudge, kinematics.length_angstrom)))[0].item()
            for sign in (1, -1)
        )
        assert (ahead - behind) / 4e-5 == pytest.approx(gradient[place].item(), rel=1e-3, abs=5e-3)


def test_the_field_follows_the_atoms_as_its_grid_gets_finer(receptor: Atoms, ligand: Ligand) -> None:
    near = Box(BOX.centre, (20.0, 20.0, 20.0))
    atoms = torch.from_numpy(ligand.atoms.positions)[None]
    exact = FromAtoms(receptor, ligand, near, CPU, F64)(atoms)[0].item()
    errors = [
        abs(
            FromField(build(receptor, ligand.atoms.kinds, near, spacing, CPU, F64), ligand)(atoms)[0].item()
            - exact
        )
        for spacing in (1.0, 0.5)
    ]
    assert errors[1] < errors[0]
    assert errors[1] < 3.0


def test_outside_of_the_box_costs_more_with_distance(receptor: Atoms, ligand: Ligand) -> None:
    small = Box(BOX.centre, (6.0, 6.0, 6.0))
    force = FromField(build(receptor, ligand.atoms.kinds, small, 1.0, CPU, F64), ligand)
    atoms = torch.from_numpy(ligand.atoms.positions)[None]
    energies = [force(atoms + shift)[0].item() for shift in (20.0, 40.0)]
    slope = force(atoms + 40.0)[1]
    assert energies[1] > energies[0]
    assert bool((slope == 10.0).all())


def test_single_precision_agrees_with_double(receptor: Atoms, ligand: Ligand) -> None:
    atoms = torch.from_numpy(ligand.atoms.positions)[None]
    double, single = (
        FromAtoms(receptor, ligand, BOX, CPU, dtype)(atoms.to(dtype))[0].item()
        for dtype in (F64, torch.float32)
    )
    assert single == pytest.approx(double, rel=2e-5)
