"""The kernels of one molecular dynamics step in a fused engine, from the size of the system. No PyTorch.

What an engine of today launches for constrained Langevin dynamics with particle-mesh Ewald: pair search by blocks
of 32 atoms, pair forces in tiles, charge spreading, transforms, interpolation, bonded terms, integration and
constraints. Counts are per step and follow from the algorithm:

* pairs: (2π/3) cutoff³ × density an atom, each once; tiles of 32 × 32 compute ``TILE_WASTE`` times as many. A tile
  gathers 32 positions and adds 3 × 32 forces, each in a sector of its own.
* search: every ``SEARCH_STEPS`` steps all blocks are tested against all others; atoms are checked in every step.
* mesh: order³ additions an atom to spread, order² rows of 1.5 sectors an atom to interpolate; 2.5 n log2 n
  instructions a real transform, two passes over half-complex data an axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from windtunnel.workloads.science.kernel import EngineKernel

TILE = 32.0
SECTOR_BYTES = 32.0
TILE_WASTE = 2.3
"""Pairs computed over pairs inside the cutoff: blocks of 32 atoms against single neighbours, with a margin."""
PAIR_INSTRUCTIONS = 60.0
"""Distance, Lennard-Jones, exp and erfc by polynomial, forces on both atoms, shuffles inside the warp."""
SEARCH_STEPS = 20.0
SEARCH_INSTRUCTIONS = 40.0
"""One block against another: box distance and test."""
SPREAD_INSTRUCTIONS = 1500.0
GATHER_INSTRUCTIONS = 2500.0
BONDED_INSTRUCTIONS = 150.0
"""A bonded term, averaged over bonds, angles, dihedrals and 1-4 pairs."""
TERMS_PER_SOLUTE_ATOM = 7.0
"""Of proteins in all-atom force fields with constrained hydrogens."""
TERMS_PER_THREAD_GROUP = 4.0
"""Bonded terms that share their atoms' cache sectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MdShape:
    """What a step's cost depends on.

    Attributes:
        density_per_nm3: atoms a cubic nanometre. order: of the mesh's splines.
        mesh_points: of the whole mesh; 0 without long-range electrostatics.
        bonded_terms: bonds, angles, dihedrals and 1-4 pairs that are computed.
    """

    atoms: int
    cutoff_nm: float = 0.9
    density_per_nm3: float = 100.0
    mesh_points: float = 0.0
    order: int = 5
    bonded_terms: float = 0.0

    @property
    def pairs(self) -> float:
        """Pairs inside the cutoff, each once; never more than all."""
        near = 2.0 * math.pi / 3.0 * self.cutoff_nm**3 * self.density_per_nm3
        return self.atoms * min(near, (self.atoms - 1) / 2.0)


def solvated(atoms: int, *, solute: float = 0.15, cutoff_nm: float = 0.9, tolerance: float = 5e-4) -> MdShape:
    """A biomolecule in rigid water: ``atoms`` in all, of which the fraction ``solute`` is not water.

    The mesh is what an Ewald tolerance asks for: alpha = √(−ln 2 tolerance) ÷ cutoff, and 2 alpha × edge ÷
    (3 tolerance^(1/5)) points along an edge (the rule of OpenMM's manual).
    """
    density = 100.0
    edge = (atoms / density) ** (1 / 3)
    alpha = math.sqrt(-math.log(2.0 * tolerance)) / cutoff_nm
    points = 2.0 * alpha * edge / (3.0 * tolerance**0.2)
    return MdShape(
        atoms=atoms,
        cutoff_nm=cutoff_nm,
        density_per_nm3=density,
        mesh_points=float(math.ceil(points) ** 3),
        bonded_terms=TERMS_PER_SOLUTE_ATOM * solute * atoms,
    )


def step_kernels(shape: MdShape) -> tuple[EngineKernel, ...]:
    """The kernels of one step."""
    n = float(shape.atoms)
    near, blocks = shape.pairs / n, n / TILE
    tests = TILE_WASTE * near * blocks + TILE_WASTE * blocks**2
    tiles = TILE_WASTE * shape.pairs / TILE**2
    kernels = (
        EngineKernel(
            name="pair search",
            instructions=100.0 * n + SEARCH_INSTRUCTIONS * tests / SEARCH_STEPS,
            cache_bytes=64.0 * n,
            memory_bytes=32.0 * n + 8.0 * shape.pairs / SEARCH_STEPS,
            round_trips=30,
            launches=3,
        ),
        EngineKernel(
            name="pair forces",
            instructions=PAIR_INSTRUCTIONS * TILE_WASTE * shape.pairs,
            cache_bytes=tiles * 4.0 * TILE * SECTOR_BYTES,
            memory_bytes=60.0 * n,
            round_trips=60,
        ),
        EngineKernel(
            name="bonded terms",
            instructions=BONDED_INSTRUCTIONS * shape.bonded_terms,
            cache_bytes=18.0 * SECTOR_BYTES * shape.bonded_terms / TERMS_PER_THREAD_GROUP,
            memory_bytes=60.0 * shape.bonded_terms / TERMS_PER_THREAD_GROUP,
            round_trips=10,
        ),
        EngineKernel(
            name="integration",
            instructions=600.0 * n,
            cache_bytes=400.0 * n,
            memory_bytes=400.0 * n,
            round_trips=40,
            launches=6,
        ),
        EngineKernel(
            name="constraints",
            instructions=500.0 * n,
            cache_bytes=150.0 * n,
            memory_bytes=150.0 * n,
            round_trips=60,
            launches=4,
        ),
    )
    return kernels + (_mesh_kernels(shape) if shape.mesh_points else ())


def _mesh_kernels(shape: MdShape) -> tuple[EngineKernel, ...]:
    n, mesh, order = float(shape.atoms), shape.mesh_points, float(shape.order)
    half_complex_bytes = 8.0 * mesh / 2.0
    passes = 2.0 * 3.0 * 2.0  # there and back, three axes, read and write
    return (
        EngineKernel(
            name="charge spreading",
            instructions=SPREAD_INSTRUCTIONS * n,
            cache_bytes=order**3 * SECTOR_BYTES * n,
            memory_bytes=16.0 * n + 16.0 * mesh,
            round_trips=20,
            launches=2,
        ),
        EngineKernel(
            name="transforms",
            instructions=2.0 * 2.5 * mesh * math.log2(max(mesh, 2.0)),
            cache_bytes=passes * half_complex_bytes,
            memory_bytes=passes * half_complex_bytes,
            round_trips=36,
            launches=6,
        ),
        EngineKernel(
            name="convolution",
            instructions=15.0 * mesh,
            cache_bytes=2.0 * half_complex_bytes,
            memory_bytes=2.0 * half_complex_bytes,
            round_trips=6,
        ),
        EngineKernel(
            name="interpolation",
            instructions=GATHER_INSTRUCTIONS * n,
            cache_bytes=order**2 * 1.5 * SECTOR_BYTES * n,
            memory_bytes=60.0 * n + 4.0 * mesh,
            round_trips=20,
        ),
    )
