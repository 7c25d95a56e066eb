"""Boxes of TIP3P water of any size, made without reading a file: for trials, tests and curves over size."""

from __future__ import annotations

import math

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md.read import ewald_parameters
from windtunnel.workloads.md.system import Electrostatics, MolecularSystem, Nonbonded, Terms

OXYGEN_HYDROGEN_NM = 0.09572
ANGLE = math.radians(104.52)
BOND, BEND = (OXYGEN_HYDROGEN_NM, 462750.4), (ANGLE, 836.8)
MOLECULES_PER_NM3 = 33.3


def water_box(
    molecules: int,
    *,
    cutoff_nm: float = 0.9,
    rigid: bool = True,
    electrostatics: Electrostatics = Electrostatics.PME,
    seed: int = 0,
) -> MolecularSystem:
    """``molecules`` waters (Jorgensen et al., J. Chem. Phys. 79, 926) on a lattice at the density of water, turned at
    random. Equilibrate before measuring anything physical.

    Raises:
        WindtunnelError: E941, a box too small for the cutoff.
    """
    edge = (molecules / MOLECULES_PER_NM3) ** (1 / 3)
    if edge < 2.0 * cutoff_nm:
        raise WindtunnelError(
            "E941",
            f"a box of {molecules:,} waters is {edge:.2f} nm wide, less than two cutoffs",
            hint=f"take {math.ceil(MOLECULES_PER_NM3 * (2 * cutoff_nm) ** 3):,} waters or more, or a shorter cutoff",
        )
    per_edge = math.ceil(molecules ** (1 / 3))
    lattice = np.stack(np.meshgrid(*3 * [np.arange(per_edge)], indexing="ij"), -1).reshape(-1, 3)[:molecules]
    centres = (lattice + 0.5) * (edge / per_edge)
    half = OXYGEN_HYDROGEN_NM * np.array([math.cos(ANGLE / 2), math.sin(ANGLE / 2), 0.0])
    shape = np.array([[0.0, 0.0, 0.0], half, half * [1, -1, 1]])
    positions = centres[:, None] + np.einsum("nij,aj->nai", _rotations(molecules, seed), shape)
    o = 3 * np.arange(molecules)
    bonds = np.stack([o, o + 1, o, o + 2], 1).reshape(-1, 2)
    angles = np.stack([o + 1, o, o + 2], 1)
    excluded = np.concatenate([bonds, np.stack([o + 1, o + 2], 1)])
    lengths = np.repeat([OXYGEN_HYDROGEN_NM, OXYGEN_HYDROGEN_NM, 2 * half[1]], molecules)
    held = np.concatenate([np.stack([o, o + 1], 1), np.stack([o, o + 2], 1), np.stack([o + 1, o + 2], 1)])
    terms = Terms(
        bonds=bonds if not rigid else bonds[:0],
        bond_parameters=np.tile(BOND, (0 if rigid else 2 * molecules, 1)),
        angles=angles if not rigid else angles[:0],
        angle_parameters=np.tile(BEND, (0 if rigid else molecules, 1)),
        exclusions=excluded,
        constraints=held if rigid else held[:0],
        constraint_nm=lengths if rigid else lengths[:0],
    )
    box = np.full(3, edge)
    alpha, grid = ewald_parameters(box, cutoff_nm)
    return MolecularSystem(
        positions_nm=positions.reshape(-1, 3),
        box_nm=box,
        masses=np.tile([15.99943, 1.007947, 1.007947], molecules),
        charges=np.tile([-0.834, 0.417, 0.417], molecules),
        sigma_nm=np.tile([0.31507524, 1.0, 1.0], molecules),
        epsilon=np.tile([0.635968, 0.0, 0.0], molecules),
        terms=terms,
        nonbonded=Nonbonded(
            electrostatics=electrostatics,
            cutoff_nm=cutoff_nm,
            alpha_per_nm=alpha,
            grid=grid,
            dispersion_correction=True,
        ),
        names=tuple(f"HOH{m + 1}:{a}" for m in range(molecules) for a in ("O", "H1", "H2")),
        title=f"{molecules} waters",
    )


def _rotations(count: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Even random rotations, (count, 3, 3), from unit quaternions."""
    q = np.random.default_rng(seed).normal(size=(count, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], 1)
