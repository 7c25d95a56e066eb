"""Energies and forces against OpenMM's reference platform, sander, and their own derivatives."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from windtunnel.numerics.casts import round_to
from windtunnel.numerics.formats import BF16, TF32
from windtunnel.workloads.md.forces import ForceField
from windtunnel.workloads.md.read import from_openmm, read_amber
from windtunnel.workloads.md.system import Electrostatics
from windtunnel.workloads.md.units import AMBER_COULOMB, COULOMB
from windtunnel.workloads.md.water import water_box

from . import inputs

FP64_GATE, FP32_ENERGY_GATE, FP32_FORCE_GATE = 1e-10, 2e-6, 2e-5


@pytest.mark.parametrize(
    ("names", "switch_nm"),
    [
        (inputs.ALANINE, None),
        (inputs.ALANINE, 0.75),
        (inputs.LYSOZYME, None),
        pytest.param(inputs.DHFR, None, marks=pytest.mark.slow),
    ],
    ids=["alanine", "alanine-switched", "lysozyme-vacuum", "dhfr"],
)
def test_forces_and_energies_are_openmms(names: tuple[str, str], switch_nm: float | None) -> None:
    made, positions = inputs.openmm_system(names, switch_nm=switch_nm)
    energy, forces, parts = inputs.reference(made, positions)
    system = from_openmm(made, positions)
    ours, found = inputs.evaluate(system, torch.float64)
    assert float(ours.total) == pytest.approx(energy, rel=FP64_GATE)
    assert inputs.relative_rms(found, forces) <= FP64_GATE
    by_term = {
        "HarmonicBondForce": ours.bond,
        "HarmonicAngleForce": ours.angle,
        "PeriodicTorsionForce": ours.torsion,
        "NonbondedForce": ours.lennard_jones + ours.coulomb + ours.lennard_jones_14 + ours.coulomb_14,
    }
    for name, value in by_term.items():
        assert float(value) == pytest.approx(parts[name], rel=FP64_GATE), name
    single, rounded = inputs.evaluate(system, torch.float32)
    assert float(single.total) == pytest.approx(energy, rel=FP32_ENERGY_GATE)
    assert inputs.relative_rms(rounded, forces) <= FP32_FORCE_GATE
    # the gate has teeth: forces in formats with fewer digits do not pass
    for fmt in (TF32, BF16):
        coarse = round_to(torch.from_numpy(found).float(), fmt).double().numpy()
        assert inputs.relative_rms(coarse, forces) > 5 * FP32_FORCE_GATE, fmt.name


def test_energies_are_sanders_with_ambers_constant_and_not_with_openmms() -> None:
    """T4 lysozyme L99A with its ligand, as sander printed it (without bonds to hydrogen: ntf=2)."""
    kcal = 4.184
    printed = sander(inputs.data(inputs.SANDER).read_text())
    system = read_amber(
        *(inputs.data(name) for name in inputs.LYSOZYME), coulomb=AMBER_COULOMB
    )  # rigid, as ntf=2
    ours, _ = inputs.evaluate(system, torch.float64)
    for name, value in (
        ("BOND", ours.bond),
        ("ANGLE", ours.angle),
        ("DIHED", ours.torsion),
        ("1-4 NB", ours.lennard_jones_14),
        ("VDWAALS", ours.lennard_jones),
    ):
        assert float(value) / kcal == pytest.approx(printed[name], abs=1.5e-4), name
    coulomb, coulomb_14 = float(ours.coulomb) / kcal, float(ours.coulomb_14) / kcal
    assert coulomb == pytest.approx(printed["EELEC"], rel=1e-5)
    assert coulomb_14 == pytest.approx(printed["1-4 EEL"], rel=1e-5)
    assert coulomb * COULOMB / AMBER_COULOMB != pytest.approx(printed["EELEC"], rel=2e-5)


def sander(text: str) -> dict[str, float]:
    """Terms of the first step of a sander output, kcal/mol."""
    names = "BOND|ANGLE|DIHED|VDWAALS|1-4 NB|1-4 EEL|EELEC"
    found = re.findall(rf"({names})\s*=\s*(-?\d+\.\d+)", text[text.index("NSTEP") :])
    return {name: float(value) for name, value in reversed(found)}


def test_forces_are_the_slope_of_the_energy() -> None:
    system = water_box(216, cutoff_nm=0.8, rigid=False)
    field = ForceField(system, dtype=torch.float64)
    draw = np.random.default_rng(3)
    x = torch.from_numpy(system.positions_nm + 0.005 * draw.normal(size=(648, 3)))
    _, pairs = field.list_pairs(x)
    forces, _ = field(x, pairs)
    step, largest = 1e-5, float(forces.abs().max())
    for atom, axis in zip(draw.integers(0, 648, 6), draw.integers(0, 3, 6)):
        ends = []
        for sign in (1.0, -1.0):
            moved = x.clone()
            moved[atom, axis] += sign * step
            ends.append(float(field(moved, pairs)[1].total))
        slope = -(ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(float(forces[atom, axis]), abs=1e-7 * largest)


def test_replicas_do_not_see_each_other() -> None:
    system = water_box(216, cutoff_nm=0.8)
    field, three = (
        ForceField(system, dtype=torch.float64),
        ForceField(system, replicas=3, dtype=torch.float64),
    )
    x = torch.from_numpy(system.positions_nm)
    spacing = float(field.box[0]) / system.nonbonded.grid[0]
    shifted = torch.cat(
        [x, x + 3 * spacing, x]
    )  # a system in a box looks the same wherever it is on the mesh
    one, energies = field(x, field.list_pairs(x)[1])
    all_three, of_three = three(shifted, three.list_pairs(shifted)[1])
    assert of_three.total.tolist() == pytest.approx([float(energies.total)] * 3, rel=1e-9)
    for copy in all_three.view(3, -1, 3)[[0, 2]]:
        assert torch.allclose(copy, one, rtol=1e-9, atol=1e-9 * float(one.abs().max()))


@pytest.mark.parametrize("kind", [Electrostatics.REACTION_FIELD, Electrostatics.PME])
def test_a_sum_over_pairs_does_not_depend_on_how_they_were_found(kind: Electrostatics) -> None:
    system = water_box(1000, cutoff_nm=0.8, electrostatics=kind)  # three cells along an edge
    field = ForceField(system, dtype=torch.float64)
    x = torch.from_numpy(system.positions_nm)
    by_cells = field.finder.find(x)
    field.finder._cells = None
    every = field.finder.find(x)
    n = system.atoms

    def near(found: object) -> set[int]:
        first, second = torch.minimum(found.first, found.second), torch.maximum(found.first, found.second)
        d = x[second] - x[first]
        d = d - field.box * torch.round(d / field.box)
        return set((first * n + second)[(d * d).sum(1) < 0.64].tolist())

    assert near(by_cells) == near(every)


def test_the_list_of_fixed_size_is_that_of_the_cpu() -> None:
    system = water_box(1000, cutoff_nm=0.8)
    field = ForceField(system, dtype=torch.float64)
    x = torch.from_numpy(system.positions_nm)
    free, n = field.finder.find(x), system.atoms
    field.finder._sizes_follow_data = False
    fixed = field.finder.find(x)
    used = fixed.first != fixed.second

    def keys(first: torch.Tensor, second: torch.Tensor) -> list[int]:
        return sorted((torch.minimum(first, second) * n + torch.maximum(first, second)).tolist())

    assert len(fixed.first) > int(used.sum())
    assert keys(fixed.first[used], fixed.second[used]) == keys(free.first, free.second)
