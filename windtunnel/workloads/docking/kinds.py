"""Atom kinds of the Vina score: what an atom is to its neighbours, not which element it is.

A carbon counts as hydrophobic unless it is bonded to a heteroatom; nitrogen and oxygen count as donor, acceptor,
both or neither. Radii and classes: O. Trott and A. J. Olson, J. Comput. Chem. 31 (2010) 455, as AutoDock Vina 1.2
applies them to PDBQT atom types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windtunnel.errors import WindtunnelError


@dataclass(frozen=True, slots=True)
class Kind:
    """One atom kind: van der Waals radius in Å and its classes."""

    name: str
    radius: float
    hydrophobic: bool = False
    donor: bool = False
    acceptor: bool = False


KINDS = (
    Kind("C_hydrophobic", 1.9, hydrophobic=True),
    Kind("C_polar", 1.9),
    Kind("N", 1.8),
    Kind("N_donor", 1.8, donor=True),
    Kind("N_acceptor", 1.8, acceptor=True),
    Kind("N_both", 1.8, donor=True, acceptor=True),
    Kind("O", 1.7),
    Kind("O_donor", 1.7, donor=True),
    Kind("O_acceptor", 1.7, acceptor=True),
    Kind("O_both", 1.7, donor=True, acceptor=True),
    Kind("S", 2.0),
    Kind("P", 2.1),
    Kind("F", 1.5, hydrophobic=True),
    Kind("Cl", 1.8, hydrophobic=True),
    Kind("Br", 2.0, hydrophobic=True),
    Kind("I", 2.2, hydrophobic=True),
    Kind("Si", 2.2),
    Kind("metal", 1.2, donor=True),
)
INDEX = {kind.name: index for index, kind in enumerate(KINDS)}

RADIUS = np.array([kind.radius for kind in KINDS])
HYDROPHOBIC = np.array([kind.hydrophobic for kind in KINDS])
DONOR = np.array([kind.donor for kind in KINDS])
ACCEPTOR = np.array([kind.acceptor for kind in KINDS])

# Covalent radii in Å (B. Cordero et al., Dalton Trans. 2008, 2832, rounded as docking programs do), for bonds.
COVALENT_RADIUS = {
    "H": 0.37, "C": 0.77, "N": 0.75, "O": 0.73, "F": 0.71, "SI": 1.18, "P": 1.06, "S": 1.02, "CL": 0.99,
    "BR": 1.14, "I": 1.33,
}  # fmt: skip
METAL_RADIUS = 1.4
METALS = frozenset("MG MN ZN CA FE CU CO NI NA K".split())
BOND_ALLOWANCE = 1.1  # two atoms are bonded when nearer than this times the sum of their covalent radii


def kinds_of(
    elements: list[str], acceptor: NDArray[np.bool_], positions: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The kind of each heavy atom; hydrogens get -1.

    Args:
        elements: upper-case symbol of each atom, polar hydrogens included.
        acceptor: whether each atom can accept a hydrogen bond.
        positions: (n, 3) in Å; bonds are found from distances.

    Raises:
        WindtunnelError: E970, an element without a kind.
    """
    first, second = bonds(elements, positions)
    donor = np.zeros(len(elements), bool)
    beside_hetero = np.zeros(len(elements), bool)
    for a, b in (*zip(first, second), *zip(second, first)):
        donor[a] |= elements[b] == "H"
        beside_hetero[a] |= elements[b] not in ("C", "H")
    return np.array(
        [
            _kind(element, bool(donor[i]), bool(acceptor[i]), bool(beside_hetero[i]))
            for i, element in enumerate(elements)
        ]
    )


def bonds(elements: list[str], positions: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of bonded atoms as two index arrays, each pair once, from distances."""
    from scipy.spatial import cKDTree

    radius = np.array([COVALENT_RADIUS.get(element, METAL_RADIUS) for element in elements])
    pairs = cKDTree(positions).query_pairs(2 * radius.max() * BOND_ALLOWANCE, output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    apart = np.linalg.norm(positions[first] - positions[second], axis=1)
    bonded = apart < BOND_ALLOWANCE * (radius[first] + radius[second])
    return first[bonded], second[bonded]


def _kind(element: str, donor: bool, acceptor: bool, beside_hetero: bool) -> int:
    if element == "H":
        return -1
    if element == "C":
        return INDEX["C_polar" if beside_hetero else "C_hydrophobic"]
    if element in ("N", "O"):
        role = "_both" if donor and acceptor else "_donor" if donor else "_acceptor" if acceptor else ""
        return INDEX[element + role]
    if element in METALS:
        return INDEX["metal"]
    name = {"CL": "Cl", "BR": "Br", "SI": "Si"}.get(element, element)
    if name not in INDEX:
        raise WindtunnelError(
            "E970",
            f"no docking parameters for element {element}",
            values={"known": ", ".join(sorted({k.name.split("_")[0] for k in KINDS} | set(METALS)))},
            hint="remove the atom, or the ion it belongs to, from the structure",
        )
    return INDEX[name]
