"""The kernels of one docking in a fused engine, from the size of the ligand. No PyTorch.

Two ways to run one algorithm: every copy of the ligand launched for itself, as DSDP does (384 copies, each a kernel
of one block, between moves the host decides), and all copies of many ligands in one launch, as Uni-Dock does. Counts
follow from the algorithm:

* one gradient step of one copy: eight corners of the field for each atom, one distance and one table or polynomial
  for each pair inside the ligand, the torsion tree there and back;
* one Monte-Carlo move: ``STEPS`` gradient steps, one launch, three small copies to and from the host;
* the field: every grid point against the receptor atoms within 8 Å of it, once a ligand.
"""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.specs.schema import Chip
from windtunnel.workloads.science.curve import Curve, Point
from windtunnel.workloads.science.engine import EngineStep, engine_step
from windtunnel.workloads.science.kernel import EngineKernel

COPIES, MOVES, STEPS = 384, 40, 100  # DSDP's settings (Y. Huang et al., J. Chem. Inf. Model. 63 (2023) 4355)
HOST_COPIES_A_MOVE = 3.0
RESIDENT_GRIDS = 128.0
"""Kernels that a card runs side by side from compute capability 7.0 on (CUDA Programming Guide); assumed for MUSA."""
FIELD_POINTS = 100.0**3
RECEPTOR_ATOMS_NEAR = 210.0
"""Heavy atoms within 8 Å of a point in a protein: 2145 Å³ at about 0.1 an Å³, all of it filled (assumed)."""
FIELD_INSTRUCTIONS = 25.0
ATOM_INSTRUCTIONS = 120.0
"""Field read by eight corners with weights and slopes, and the product with the fragment's rotation."""
PAIR_INSTRUCTIONS = 45.0
TORSION_INSTRUCTIONS = 400.0
SECTOR_BYTES = 32.0
TRIPS_A_STEP = 4.0
"""Dependent accesses of a gradient step: the pose, the field, two sums over the block (assumed)."""


@dataclass(frozen=True, slots=True)
class DockingShape:
    """A ligand's heavy atoms, pairs inside it that interact, and torsions; the field's kinds of atoms."""

    atoms: float = 29.0
    pairs: float = 364.0
    torsions: float = 11.0
    kinds: float = 6.0


MEAN_LIGAND = DockingShape()
"""Mean of 200 ligands of DSDP's own set."""


def launched_singly(shape: DockingShape) -> tuple[EngineKernel, ...]:
    """One docking, every copy a kernel of its own and every move a launch."""
    moves = float(COPIES * MOVES)
    search = _search(shape, ligands=1.0, launches=moves, chains=moves)
    host = EngineKernel(
        name="host copies", launches=HOST_COPIES_A_MOVE * moves, round_trips=HOST_COPIES_A_MOVE * moves
    )
    return _field(shape, 1.0), search, host


def launched_together(shape: DockingShape, ligands: float) -> tuple[EngineKernel, ...]:
    """``ligands`` dockings at once: one launch for every move of all copies."""
    return _field(shape, ligands), _search(shape, ligands, launches=float(MOVES), chains=float(MOVES))


def docking_step(shape: DockingShape, chip: Chip, ligands: float | None) -> EngineStep:
    """Price dockings: one launched singly (``ligands`` is None), or ``ligands`` together."""
    if ligands is None:
        return engine_step(launched_singly(shape), chip, streams=min(float(COPIES), RESIDENT_GRIDS))
    return engine_step(launched_together(shape, ligands), chip)


def ligands_per_second(shape: DockingShape, chip: Chip, batches: tuple[int, ...]) -> Curve:
    """Rate against the number of ligands docked together."""
    points = tuple(
        Point(float(n), step.seconds.inverse(float(n)), step.limit)
        for n in batches
        for step in (docking_step(shape, chip, float(n)),)
    )
    return Curve(chip.name, "launched together", "ligands at once", "ligands/s", points)


def one_by_one(shape: DockingShape, chip: Chip) -> Curve:
    """Rate of one docking after the other, every copy launched for itself: a curve of one point."""
    step = docking_step(shape, chip, None)
    return Curve(
        chip.name,
        "launched singly",
        "ligands at once",
        "ligands/s",
        (Point(1.0, step.seconds.inverse(1.0), step.limit),),
    )


def _field(shape: DockingShape, ligands: float) -> EngineKernel:
    pairs = FIELD_POINTS * RECEPTOR_ATOMS_NEAR * ligands
    return EngineKernel(
        name="field",
        instructions=FIELD_INSTRUCTIONS * shape.kinds * pairs,
        cache_bytes=16.0 * FIELD_POINTS * shape.kinds * ligands,
        memory_bytes=16.0 * FIELD_POINTS * shape.kinds * ligands,
        round_trips=RECEPTOR_ATOMS_NEAR / 32.0,
    )


def _search(shape: DockingShape, ligands: float, launches: float, chains: float) -> EngineKernel:
    steps = float(COPIES * MOVES * (STEPS + 1)) * ligands
    one = (
        ATOM_INSTRUCTIONS * shape.atoms
        + PAIR_INSTRUCTIONS * shape.pairs
        + TORSION_INSTRUCTIONS * shape.torsions
    )
    return EngineKernel(
        name="search",
        instructions=one * steps,
        cache_bytes=4.0 * SECTOR_BYTES * shape.atoms * steps,  # two rows of two corners share a sector
        memory_bytes=0.0,
        round_trips=TRIPS_A_STEP * (STEPS + 1) * chains,
        launches=launches,
    )
