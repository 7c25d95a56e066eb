"""Structures and parameters from files: AMBER prmtop with coordinates, and PDB with a force field, through OpenMM.

OpenMM parses and assigns parameters; what it builds is read back into a ``MolecularSystem``. Interactions that this
program does not compute are refused, never dropped.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md.system import Electrostatics, MolecularSystem, Nonbonded, Terms
from windtunnel.workloads.md.units import COULOMB

FORCE_FIELDS = ("amber14-all.xml", "amber14/tip3p.xml")
HARMLESS = ("CMMotionRemover",)


def read_amber(
    prmtop: Path, coordinates: Path, *, coulomb: float = COULOMB, **options: Any
) -> MolecularSystem:
    """A system from an AMBER parameter file and its coordinates (inpcrd, rst7 or PDB).

    Args:
        options: ``cutoff_nm``, ``electrostatics``, ``rigid``, ... of ``from_openmm_forcefield``.

    Raises:
        WindtunnelError: E940 a file that cannot be read, E941 atoms that do not match, E943 interactions that are
            not computed, E945 no OpenMM.
    """
    app = _openmm_app()
    with _refusing(prmtop):
        topology_file = app.AmberPrmtopFile(str(prmtop))
    positions, box = _coordinates(app, coordinates)
    return _built(topology_file, topology_file.topology, positions, box, prmtop, coulomb, options)


def read_pdb(
    pdb: Path, force_field: tuple[str, ...] = FORCE_FIELDS, *, coulomb: float = COULOMB, **options: Any
) -> MolecularSystem:
    """A system from a PDB file with hydrogens, parameters from OpenMM's force field files.

    Raises:
        WindtunnelError: E940, E941, E943, E945 as ``read_amber``; E942 residues without parameters.
    """
    app = _openmm_app()
    with _refusing(pdb):
        structure = app.PDBFile(str(pdb))
    with _refusing(Path(force_field[0])):
        field = app.ForceField(*force_field)
    positions = np.array(structure.positions.value_in_unit(_unit().nanometer))
    vectors = structure.topology.getPeriodicBoxVectors()
    box = None if vectors is None else np.array(vectors.value_in_unit(_unit().nanometer))
    maker = _PdbMaker(field, structure.topology)
    return _built(maker, structure.topology, positions, box, pdb, coulomb, options)


class _PdbMaker:
    """A force field with its topology, called as ``AmberPrmtopFile`` is."""

    def __init__(self, field: Any, topology: Any) -> None:
        self.field, self.topology = field, topology

    def createSystem(self, **options: Any) -> Any:  # noqa: N802 (OpenMM's name)
        return self.field.createSystem(self.topology, **options)


def _built(
    maker: Any, topology: Any, positions: Any, box: Any, path: Path, coulomb: float, options: dict[str, Any]
) -> MolecularSystem:
    app, unit = _openmm_app(), _unit()
    electrostatics = Electrostatics(
        options.pop("electrostatics", Electrostatics.PME if box is not None else Electrostatics.NO_CUTOFF)
    )
    cutoff, switch = options.pop("cutoff_nm", 0.9), options.pop("switch_nm", None)
    rigid, tolerance = options.pop("rigid", True), options.pop("ewald_tolerance", 5e-4)
    method = {
        Electrostatics.NO_CUTOFF: app.NoCutoff,
        Electrostatics.REACTION_FIELD: app.CutoffPeriodic,
        Electrostatics.PME: app.PME,
    }[electrostatics]
    if box is None and electrostatics is not Electrostatics.NO_CUTOFF:
        raise WindtunnelError(
            "E941",
            f"`{path}` has no periodic box, and {electrostatics} needs one",
            hint="give coordinates with a box, or --electrostatics no-cutoff",
        )
    try:
        made = maker.createSystem(
            nonbondedMethod=method,
            nonbondedCutoff=cutoff * unit.nanometer,
            constraints=app.HBonds if rigid else None,
            rigidWater=rigid,
            removeCMMotion=False,
            **({} if electrostatics is not Electrostatics.PME else {"ewaldErrorTolerance": tolerance}),
        )
    except Exception as error:
        raise _missing(path, error) from error
    if len(positions) != made.getNumParticles():
        raise WindtunnelError(
            "E941",
            f"the coordinates hold {len(positions):,} atoms, `{path}` {made.getNumParticles():,}",
            hint="give the coordinates that belong to this parameter file",
        )
    if box is not None:
        made.setDefaultPeriodicBoxVectors(*(vector * unit.nanometer for vector in box))
    names = tuple(f"{a.residue.name}{a.residue.id}:{a.name}" for a in topology.atoms())
    return from_openmm(
        made, positions, names, coulomb=coulomb, switch_nm=switch, title=path.stem, topology=topology
    )


def from_openmm(
    made: Any,
    positions_nm: Any,
    names: tuple[str, ...] | None = None,
    *,
    coulomb: float = COULOMB,
    switch_nm: float | None = None,
    title: str = "",
    topology: Any = None,
) -> MolecularSystem:
    """A ``MolecularSystem`` of what an OpenMM ``System`` holds.

    Raises:
        WindtunnelError: E943, a force that is not computed here, or a box that is not rectangular.
    """
    forces = {type(force).__name__: force for force in made.getForces()}
    known = {"NonbondedForce", "HarmonicBondForce", "HarmonicAngleForce", "PeriodicTorsionForce", *HARMLESS}
    if unknown := sorted(set(forces) - known):
        raise WindtunnelError(
            "E943",
            f"{title or 'the system'} needs {', '.join(unknown)}, which this program does not compute",
            hint="use a force field of harmonic bonds and angles, periodic torsions, Lennard-Jones and charges",
            values={"computed": ", ".join(sorted(known - set(HARMLESS)))},
        )
    nonbonded = forces["NonbondedForce"]
    atoms = made.getNumParticles()
    md = _md_value
    particles = np.array([[md(v) for v in nonbonded.getParticleParameters(i)] for i in range(atoms)])
    exclusions, exceptions, exception_parameters = [], [], []
    for index in range(nonbonded.getNumExceptions()):
        i, j, product, sigma, epsilon = (md(v) for v in nonbonded.getExceptionParameters(index))
        exclusions.append((i, j))
        if product != 0.0 or epsilon != 0.0:
            exceptions.append((i, j))
            exception_parameters.append((product, sigma, epsilon))
    bonds, bond_parameters = _terms(forces.get("HarmonicBondForce"), "Bond", 2, 2)
    angles, angle_parameters = _terms(forces.get("HarmonicAngleForce"), "Angle", 3, 2)
    torsions, torsion_parameters = _terms(forces.get("PeriodicTorsionForce"), "Torsion", 4, 3)
    held = [[md(v) for v in made.getConstraintParameters(i)] for i in range(made.getNumConstraints())]
    terms = Terms(
        bonds=bonds,
        bond_parameters=bond_parameters,
        angles=angles,
        angle_parameters=angle_parameters,
        torsions=torsions,
        torsion_parameters=torsion_parameters,
        exclusions=np.array(exclusions, dtype=np.int64).reshape(-1, 2),
        exceptions=np.array(exceptions, dtype=np.int64).reshape(-1, 2),
        exception_parameters=np.array(exception_parameters, dtype=np.float64).reshape(-1, 3),
        constraints=np.array([row[:2] for row in held], dtype=np.int64).reshape(-1, 2),
        constraint_nm=np.array([row[2] for row in held], dtype=np.float64),
    )
    rules, box = _rules(made, nonbonded, coulomb, switch_nm, title)
    return MolecularSystem(
        positions_nm=np.asarray(positions_nm, dtype=np.float64),
        box_nm=box,
        masses=np.array([md(made.getParticleMass(i)) for i in range(atoms)]),
        charges=particles[:, 0],
        sigma_nm=particles[:, 1],
        epsilon=particles[:, 2],
        terms=terms,
        nonbonded=rules,
        names=names or tuple(f"atom {i}" for i in range(atoms)),
        title=title,
        topology=topology,
    )


def _rules(
    made: Any, nonbonded: Any, coulomb: float, switch_nm: float | None, title: str
) -> tuple[Nonbonded, Any]:
    method = nonbonded.getNonbondedMethod()
    kinds = {
        nonbonded.NoCutoff: Electrostatics.NO_CUTOFF,
        nonbonded.CutoffPeriodic: Electrostatics.REACTION_FIELD,
        nonbonded.PME: Electrostatics.PME,
    }
    if method not in kinds:
        raise WindtunnelError(
            "E943",
            f"{title or 'the system'} treats electrostatics in a way that this program does not compute",
            hint="use PME, a reaction field in a periodic box, or no cutoff",
            values={"method": method},
        )
    kind = kinds[method]
    if kind is Electrostatics.NO_CUTOFF:
        return Nonbonded(electrostatics=kind, coulomb=coulomb), None
    vectors = np.array([[_md_value(c) for c in v] for v in made.getDefaultPeriodicBoxVectors()])
    edges = np.diag(vectors).copy()
    if np.abs(vectors - np.diag(edges)).max() > 1e-9:
        raise WindtunnelError(
            "E943",
            f"the box of {title or 'the system'} is not rectangular",
            hint="solvate in a rectangular box (in tleap: solvatebox instead of solvateoct)",
            values={"box_nm": vectors.round(4).tolist()},
        )
    cutoff = _md_value(nonbonded.getCutoffDistance())
    if float(edges.min()) < 2.0 * cutoff:
        raise WindtunnelError(
            "E941",
            f"the box of {title or 'the system'} is narrower than two cutoffs",
            hint=f"take a cutoff of {edges.min() / 2:.2f} nm or less: --cutoff-nm",
            values={"box_nm": edges.round(4).tolist(), "cutoff_nm": cutoff},
        )
    if nonbonded.getUseSwitchingFunction():
        switch_nm = _md_value(nonbonded.getSwitchingDistance())
    alpha, grid = 0.0, (0, 0, 0)
    if kind is Electrostatics.PME:
        alpha_given, *grid_given = (_md_value(v) for v in nonbonded.getPMEParameters())
        alpha, grid = alpha_given, (int(grid_given[0]), int(grid_given[1]), int(grid_given[2]))
        if alpha == 0.0:
            alpha, grid = ewald_parameters(edges, cutoff, nonbonded.getEwaldErrorTolerance())
    return Nonbonded(
        electrostatics=kind,
        cutoff_nm=cutoff,
        switch_nm=switch_nm,
        alpha_per_nm=alpha,
        grid=grid,
        dielectric=nonbonded.getReactionFieldDielectric(),
        dispersion_correction=nonbonded.getUseDispersionCorrection(),
        coulomb=coulomb,
    ), edges


def ewald_parameters(
    box_nm: Any, cutoff_nm: float, tolerance: float = 5e-4
) -> tuple[float, tuple[int, int, int]]:
    """Splitting parameter (1/nm) and mesh of an error tolerance, by the rule in OpenMM's manual."""
    alpha = math.sqrt(-math.log(2.0 * tolerance)) / cutoff_nm
    points = [math.ceil(2.0 * alpha * float(edge) / (3.0 * tolerance**0.2)) for edge in box_nm]
    grid = tuple(_smooth(max(n, 6)) for n in points)
    return alpha, (grid[0], grid[1], grid[2])


def _smooth(n: int) -> int:
    """The next number whose prime factors are 2, 3, 5 and 7: fast to transform."""
    while True:
        left = n
        for prime in (2, 3, 5, 7):
            while left % prime == 0:
                left //= prime
        if left == 1:
            return n
        n += 1


def _terms(force: Any, name: str, atoms: int, parameters: int) -> tuple[Any, Any]:
    rows = []
    if force is not None:
        get = getattr(force, f"get{name}Parameters")
        rows = [[_md_value(v) for v in get(i)] for i in range(getattr(force, f"getNum{name}s")())]
    table = np.array(rows, dtype=np.float64).reshape(-1, atoms + parameters)
    return table[:, :atoms].astype(np.int64), table[:, atoms:]


def _md_value(value: Any) -> Any:
    unit = _unit()
    return value.value_in_unit_system(unit.md_unit_system) if unit.is_quantity(value) else value


def _coordinates(app: Any, path: Path) -> tuple[Any, Any]:
    with _refusing(path):
        is_pdb = path.suffix.lower() == ".pdb"
        loaded = app.PDBFile(str(path)) if is_pdb else app.AmberInpcrdFile(str(path))
        vectors = loaded.topology.getPeriodicBoxVectors() if is_pdb else loaded.boxVectors
        nanometre = _unit().nanometer
        positions = np.array(loaded.positions.value_in_unit(nanometre))
        box = None if vectors is None else np.array(vectors.value_in_unit(nanometre))
    if not np.isfinite(positions).all():
        raise WindtunnelError(
            "E940", f"`{path}` holds coordinates that are not numbers", hint="repair the file"
        )
    return positions, box


class _refusing:  # noqa: N801 (reads as a phrase: with _refusing(path))
    """Whatever a parser raises about a file becomes one coded error."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (WindtunnelError, KeyboardInterrupt)):
            return
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WindtunnelError(
            "E940",
            f"`{self.path}` cannot be read: {reason}",
            hint="check the path and that the file is whole",
            values={"reader": type(error).__name__},
        ) from error


def _missing(path: Path, error: Exception) -> WindtunnelError:
    return WindtunnelError(
        "E942",
        f"no parameters for `{path}`: {str(error).strip().splitlines()[0]}",
        hint="add hydrogens and missing residues (pdbfixer), or name a force field that knows them: --force-field",
    )


def _openmm_app() -> Any:
    try:
        import openmm.app as app
    except ImportError:
        raise WindtunnelError(
            "E945",
            "reading molecular structures needs OpenMM, which is not installed",
            hint="pip install 'windtunnel[science]'",
        ) from None
    return app


def _unit() -> Any:
    import openmm.unit as unit

    return unit
