"""Molecular dynamics on a CPU beside torchmd and torch-pme, in turns on the same core: ratios rather than times.

The peers are no dependency: `pip install --no-deps torchmd torch-pme` where they are to be compared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch

from windtunnel.workloads.md.forces import ForceField
from windtunnel.workloads.md.integrate import Dynamics, Scheme
from windtunnel.workloads.md.minimise import minimise
from windtunnel.workloads.md.pairs import pair_forces
from windtunnel.workloads.md.system import Electrostatics, MolecularSystem
from windtunnel.workloads.md.water import water_box

MOLECULES, CUTOFF_NM, ROUNDS, STEPS = 895, 0.9, 4, 10
KCAL, ANGSTROM = 4.184, 0.1


def relaxed(kind: Electrostatics) -> tuple[MolecularSystem, Dynamics]:
    """2,685 atoms of flexible water, warm."""
    system = water_box(MOLECULES, cutoff_nm=CUTOFF_NM, rigid=False, electrostatics=kind)
    dynamics = Dynamics(ForceField(system), Scheme(step_ps=0.0005, friction_per_ps=20.0))
    minimise(dynamics, 60)
    dynamics.set_temperature(300.0)
    return system, dynamics


def side_by_side(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Best processor seconds of each, taken in turns."""
    best = [float("inf"), float("inf")]
    for attempt in range(ROUNDS + 1):
        for index, call in enumerate((one, other)):
            begin = time.process_time()
            call()
            if attempt:
                best[index] = min(best[index], time.process_time() - begin)
    return best[0], best[1]


def torchmd_steps(system: MolecularSystem, x: torch.Tensor) -> Callable[[], object]:
    """Steps of torchmd on the same atoms, terms and cutoff with its reaction field."""
    from torchmd.forces import Forces
    from torchmd.integrator import Integrator, maxwell_boltzmann
    from torchmd.systems import System

    terms, atoms = system.terms, system.atoms
    oxygen = np.arange(atoms) % 3 == 0
    sigma, epsilon = system.sigma_nm[oxygen][0] / ANGSTROM, system.epsilon[oxygen][0] / KCAL
    a, b = torch.zeros(2, 2), torch.zeros(2, 2)
    a[0, 0], b[0, 0] = 4 * epsilon * sigma**12, 4 * epsilon * sigma**6

    def term(atoms_of: np.ndarray, parameters: np.ndarray) -> dict[str, torch.Tensor]:
        number = torch.arange(len(atoms_of))
        values = torch.from_numpy(np.ascontiguousarray(parameters)).float()
        return {"idx": torch.from_numpy(atoms_of), "map": torch.stack([number, number], 1), "params": values}

    bonds = np.stack(
        [terms.bond_parameters[:, 1] / (2 * KCAL / ANGSTROM**2), terms.bond_parameters[:, 0] / ANGSTROM], 1
    )
    angles = np.stack([terms.angle_parameters[:, 1] / (2 * KCAL), terms.angle_parameters[:, 0]], 1)
    parameters = SimpleNamespace(
        natoms=atoms,
        device="cpu",
        charges=torch.from_numpy(system.charges).float(),
        masses=torch.from_numpy(system.masses).float()[:, None],
        mapped_atom_types=torch.from_numpy((~oxygen).astype(np.int64)),
        nonbonded_params={},
        nonbonded_14_params=None,
        bond_params=term(terms.bonds, bonds),
        angle_params=term(terms.angles, angles),
        dihedral_params=None,
        improper_params=None,
        get_AB=lambda: (a, b),
        get_exclusions=lambda types: terms.exclusions.tolist(),
    )
    forces = Forces(
        parameters,
        terms=["bonds", "angles", "electrostatics", "lj"],
        cutoff=CUTOFF_NM / ANGSTROM,
        rfa=True,
        solventDielectric=system.nonbonded.dielectric,
    )
    state = System(atoms, 1, torch.float32, "cpu")
    state.set_positions((x / ANGSTROM).numpy())
    state.set_box(system.box_nm[:, None] / ANGSTROM)
    state.set_velocities(maxwell_boltzmann(parameters.masses, T=300.0, replicas=1))
    integrator = Integrator(state, forces, 0.5, "cpu", gamma=0.1, T=300.0)
    energy = forces.compute(state.pos, state.box, state.forces)[0] * KCAL
    ours = ForceField(system)
    found = ours(x, ours.list_pairs(x)[1])[1]
    assert abs(float(found.total) - ours.constant_energy[0] - energy) < 2e-4 * abs(energy), (found, energy)
    return lambda: integrator.step(niter=STEPS)


def compare_torchmd() -> None:
    system, dynamics = relaxed(Electrostatics.REACTION_FIELD)
    try:
        theirs = torchmd_steps(system, dynamics.x)
    except ImportError:
        print("     torchmd is not installed: not compared")
        return

    def ours() -> None:
        for _ in range(STEPS):
            dynamics()

    plain, mine = side_by_side(theirs, ours)
    report("MD step, 2,685 atoms, reaction field", mine / plain, "x torchmd", 1.0)
    print(f"     {1e3 * mine / STEPS:.1f} ms against {1e3 * plain / STEPS:.1f} ms a step")


def compare_torch_pme() -> None:
    system, dynamics = relaxed(Electrostatics.PME)
    try:
        import torchpme
    except ImportError:
        print("     torch-pme is not installed: not compared")
        return
    field, rules = dynamics.field, system.nonbonded
    x = dynamics.x.float()
    cell, charges = torch.diag(torch.from_numpy(system.box_nm)).float(), field.charges[:, None]
    pairs = dynamics.pairs
    neighbours = torch.stack([pairs.first, pairs.second], 1)
    smearing = 1.0 / (2.0**0.5 * rules.alpha_per_nm)
    spacing = float(system.box_nm[0]) / rules.grid[0] * 1.01
    calculator = torchpme.PMECalculator(
        torchpme.CoulombPotential(smearing), mesh_spacing=spacing, interpolation_nodes=5
    )

    def theirs() -> None:
        moving = x.clone().requires_grad_()
        d = moving[neighbours[:, 1]] - moving[neighbours[:, 0]]
        d = d - field.box.float() * torch.round(d / field.box.float())
        potential = calculator(charges, cell, moving, neighbours, d.norm(dim=1))
        (potential * charges).sum().backward()

    def ours() -> None:
        forces = torch.zeros_like(x)
        rows = x.t().contiguous()
        by_row = torch.zeros_like(rows)
        pair_forces(rows, pairs, rules, field.box, by_row, 1, energies=True)
        field.mesh(dynamics.x, field.charges, forces)

    plain, mine = side_by_side(theirs, ours)
    report("PME energy and forces, 2,685 atoms, same list and mesh", mine / plain, "x torch-pme", 1.0)
    print(f"     {1e3 * mine:.1f} ms against {1e3 * plain:.1f} ms, Lennard-Jones of all pairs included")


def report(name: str, value: float, unit: str, target: float) -> None:
    print(json.dumps({"name": name, "value": value, "unit": unit, "target": target}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare_torchmd()
    compare_torch_pme()
