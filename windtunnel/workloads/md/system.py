"""A molecular system: what atoms are there, where, and how they act on each other. NumPy only.

Nanometres, picoseconds, atomic mass units, elementary charges, kJ/mol. Everything that reads files ends here, and the
forces begin here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from windtunnel.workloads.md.units import COULOMB

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Electrostatics(StrEnum):
    """How charges beyond the cutoff act."""

    NO_CUTOFF = "no-cutoff"  # every pair, no box
    REACTION_FIELD = "reaction-field"  # a dielectric outside the cutoff
    PME = "pme"  # particle-mesh Ewald


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonbonded:
    """Pair interactions.

    Attributes:
        switch_nm: where Lennard-Jones begins to be switched off; None for a sharp cutoff.
        alpha_per_nm, grid: of the Ewald sum. dielectric: of the reaction field.
        dispersion_correction: whether the energy holds Lennard-Jones beyond the cutoff, as a constant.
    """

    electrostatics: Electrostatics
    cutoff_nm: float = 0.9
    switch_nm: float | None = None
    alpha_per_nm: float = 0.0
    grid: tuple[int, int, int] = (0, 0, 0)
    dielectric: float = 78.3
    dispersion_correction: bool = False
    coulomb: float = COULOMB


def _no(columns: int) -> Integers:
    return np.zeros((0, columns), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Bonded terms: atoms (terms, 2 to 4) and their parameters.

    Attributes:
        bonds: length (nm), constant (kJ/mol/nm²), E = ½ k (r − r₀)². angles: radians, kJ/mol/rad², ½ k (θ − θ₀)².
        torsions: periodicity, phase (rad), constant (kJ/mol), E = k (1 + cos(n φ − phase)).
        exclusions: pairs that do not interact; exceptions: pairs with charge product (e²), sigma (nm), epsilon
            of their own (1-4 pairs), all of them among the exclusions.
        constraints: pairs held at a distance (nm).
    """

    bonds: Integers = field(default_factory=lambda: _no(2))
    bond_parameters: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    angles: Integers = field(default_factory=lambda: _no(3))
    angle_parameters: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    torsions: Integers = field(default_factory=lambda: _no(4))
    torsion_parameters: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    exclusions: Integers = field(default_factory=lambda: _no(2))
    exceptions: Integers = field(default_factory=lambda: _no(2))
    exception_parameters: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    constraints: Integers = field(default_factory=lambda: _no(2))
    constraint_nm: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class MolecularSystem:
    """Atoms, box, interactions.

    Attributes:
        positions_nm: (atoms, 3). box_nm: edges of the rectangular box (3,), None without one.
        sigma_nm, epsilon: Lennard-Jones of each atom, combined as Lorentz and Berthelot do.
        names: ``RES12:CA`` for messages.
        topology: OpenMM's, where the system came from a file; only writers look at it.
    """

    positions_nm: Floats
    box_nm: Floats | None
    masses: Floats
    charges: Floats
    sigma_nm: Floats
    epsilon: Floats
    terms: Terms
    nonbonded: Nonbonded
    names: tuple[str, ...]
    title: str = ""
    topology: Any = None

    @property
    def atoms(self) -> int:
        """Number of atoms."""
        return len(self.masses)

    @property
    def degrees_of_freedom(self) -> int:
        """Of all atoms less constraints."""
        return 3 * self.atoms - len(self.terms.constraints)


def dispersion_energy_nm3(system: MolecularSystem) -> float:
    """Lennard-Jones beyond the cutoff of evenly spread atoms, times the box volume: kJ/mol nm³.

    Averages over classes of atoms as OpenMM does (manual, section on the dispersion correction); with a switch,
    what it takes away inside the cutoff is added back, integrated numerically with 10⁵ midpoints.
    """
    nonbonded = system.nonbonded
    kinds, counts = np.unique(np.stack([system.sigma_nm, system.epsilon], 1), axis=0, return_counts=True)
    cutoff, switch = nonbonded.cutoff_nm, nonbonded.switch_nm
    sum6 = sum12 = sum_switch = 0.0
    for a, (sigma_a, epsilon_a) in enumerate(kinds):
        for b in range(a + 1):
            sigma_b, epsilon_b = kinds[b]
            number = counts[a] * (counts[a] + 1) / 2 if a == b else counts[a] * counts[b]
            sigma, epsilon = 0.5 * (sigma_a + sigma_b), np.sqrt(epsilon_a * epsilon_b)
            sum12 += number * epsilon * sigma**12
            sum6 += number * epsilon * sigma**6
            if switch is not None and epsilon:
                sum_switch += number * epsilon * _switched_away(sigma, switch, cutoff)
    n = float(system.atoms)
    number_of_pairs = n * (n + 1) / 2
    mean12, mean6, mean_switch = sum12 / number_of_pairs, sum6 / number_of_pairs, sum_switch / number_of_pairs
    whole = mean12 / (9.0 * cutoff**9) - mean6 / (3.0 * cutoff**3) + mean_switch
    return float(8.0 * n * n * np.pi * whole)


def _switched_away(sigma: float, switch: float, cutoff: float) -> float:
    edges = np.linspace(switch, cutoff, 100_001)
    r = 0.5 * (edges[1:] + edges[:-1])
    x = (r - switch) / (cutoff - switch)
    taken = 1.0 - (1.0 + x**3 * (-10.0 + x * (15.0 - 6.0 * x)))
    s6 = (sigma / r) ** 6
    return float(np.sum(taken * (s6 * s6 - s6) * r * r) * (edges[1] - edges[0]))
