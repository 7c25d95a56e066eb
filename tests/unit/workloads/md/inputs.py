"""Public test systems (the data files of openmmtools) and OpenMM's reference platform as the oracle."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from windtunnel.workloads.md.forces import ForceField
from windtunnel.workloads.md.read import ewald_parameters
from windtunnel.workloads.md.system import MolecularSystem

openmm = pytest.importorskip("openmm", reason="OpenMM is the oracle of molecular dynamics")


def data(name: str) -> Path:
    """A file of openmmtools' data folder; its package is not imported."""
    found = find_spec("openmmtools")
    if found is None or not found.submodule_search_locations:
        pytest.skip("openmmtools carries the test systems")
    return Path(found.submodule_search_locations[0]) / "data" / name


ALANINE = (
    "alanine-dipeptide-explicit/alanine-dipeptide.prmtop",
    "alanine-dipeptide-explicit/alanine-dipeptide.crd",
)
WATER = ("waterbox/watbox216.prmtop", "waterbox/watbox216.crd")
DHFR = ("dhfr/JAC.prmtop", "dhfr/JAC.inpcrd")
LYSOZYME = ("T4-lysozyme-L99A-implicit/complex.prmtop", "T4-lysozyme-L99A-implicit/complex-minimized.crd")
SANDER = "T4-lysozyme-L99A-implicit/complex-testenergy.sander.out"


def openmm_system(
    names: tuple[str, str], *, cutoff_nm: float = 0.9, switch_nm: float | None = None, rigid: bool = False
) -> tuple[Any, Any]:
    """OpenMM's own system with PME parameters stated, and positions (nm)."""
    from openmm import app, unit

    prmtop, coordinates = app.AmberPrmtopFile(str(data(names[0]))), app.AmberInpcrdFile(str(data(names[1])))
    box = coordinates.boxVectors
    made = prmtop.createSystem(
        nonbondedMethod=app.NoCutoff if box is None else app.PME,
        nonbondedCutoff=cutoff_nm * unit.nanometer,
        constraints=app.HBonds if rigid else None,
        rigidWater=rigid,
        removeCMMotion=False,
    )
    if box is not None:
        made.setDefaultPeriodicBoxVectors(*box)
        (nonbonded,) = (f for f in made.getForces() if isinstance(f, openmm.NonbondedForce))
        edges = np.array([box[axis][axis].value_in_unit(unit.nanometer) for axis in range(3)])
        alpha, grid = ewald_parameters(edges, cutoff_nm)
        nonbonded.setPMEParameters(alpha, *grid)
        if switch_nm is not None:
            nonbonded.setUseSwitchingFunction(True)
            nonbonded.setSwitchingDistance(switch_nm)
    return made, np.array(coordinates.positions.value_in_unit(unit.nanometer))


def reference(made: Any, positions: Any) -> tuple[float, Any, dict[str, float]]:
    """Energy (kJ/mol), forces (kJ/mol/nm) and energy by force, of OpenMM's double-precision reference platform."""
    for group, force in enumerate(made.getForces()):
        force.setForceGroup(group)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(made, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(getEnergy=True, getForces=True)
    parts = {}
    for group, force in enumerate(made.getForces()):
        part = context.getState(getEnergy=True, groups={group}).getPotentialEnergy()
        parts[type(force).__name__] = part._value
    return state.getPotentialEnergy()._value, np.array(state.getForces()._value), parts


def relative_rms(forces: Any, oracle: Any) -> float:
    """Root mean square of the force error over that of the forces."""
    return float(np.sqrt(((np.asarray(forces) - oracle) ** 2).sum() / (oracle**2).sum()))


def evaluate(system: MolecularSystem, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    """Our energies and forces (float64 array) at the system's own positions."""
    field = ForceField(system, dtype=dtype, **options)
    x = torch.from_numpy(system.positions_nm).repeat(options.get("replicas", 1), 1)
    _, pairs = field.list_pairs(x)
    forces, energies = field(x, pairs)
    return energies, forces.double().numpy()


def to_openmm(system: MolecularSystem) -> Any:
    """An OpenMM system of flexible water with the parameters of one of ours."""
    made, terms, rules = openmm.System(), system.terms, system.nonbonded
    nonbonded, bonds, angles = (
        openmm.NonbondedForce(),
        openmm.HarmonicBondForce(),
        openmm.HarmonicAngleForce(),
    )
    for mass, charge, sigma, epsilon in zip(system.masses, system.charges, system.sigma_nm, system.epsilon):
        made.addParticle(mass)
        nonbonded.addParticle(charge, sigma, epsilon)
    for i, j in terms.exclusions.tolist():
        nonbonded.addException(i, j, 0.0, 1.0, 0.0)
    for atoms, parameters in zip(terms.bonds.tolist(), terms.bond_parameters.tolist()):
        bonds.addBond(*atoms, *parameters)
    for atoms, parameters in zip(terms.angles.tolist(), terms.angle_parameters.tolist()):
        angles.addAngle(*atoms, *parameters)
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.PME)
    nonbonded.setCutoffDistance(rules.cutoff_nm)
    nonbonded.setPMEParameters(rules.alpha_per_nm, *rules.grid)
    nonbonded.setUseDispersionCorrection(rules.dispersion_correction)
    for force in (nonbonded, bonds, angles):
        made.addForce(force)
    assert system.box_nm is not None
    made.setDefaultPeriodicBoxVectors(*np.diag(system.box_nm).tolist())
    return made
