"""Receptors and ligands as arrays, read from PDBQT, PDB and SDF.

Lengths in Å. Ligands come with their torsion tree; hydrogens only decide who donates a hydrogen bond and are then
left out, as in the score.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.docking.kinds import bonds, kinds_of

# PDBQT atom types that do not begin with the element's own symbol, or mark an acceptor.
_ELEMENT_OF_TYPE = {
    "A": "C",
    "G": "C",
    "OA": "O",
    "NA": "N",
    "NS": "N",
    "OS": "O",
    "SA": "S",
    "HD": "H",
    "HS": "H",
}
_GLUE = frozenset("G0 G1 G2 G3 CG0 CG1 CG2 CG3".split())
_ACCEPTORS = frozenset("OA NA OS NS".split())


@dataclass(frozen=True, slots=True)
class Atoms:
    """Heavy atoms: positions (n, 3) in Å, kind of each (index into ``kinds.KINDS``) and a name to report."""

    positions: NDArray[np.float64]
    kinds: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Torsion:
    """A rotatable bond: ``moved`` atoms turn about the line from atom ``near`` to atom ``far``."""

    near: int
    far: int
    moved: frozenset[int]


@dataclass(frozen=True, slots=True)
class Ligand:
    """A flexible molecule.

    Attributes:
        torsions: parents before children; bonds that only turn hydrogens are not among them.
        rotors: what the affinity is divided by counts: half for each end of a rotatable bond that goes on.
        serials: PDBQT serial number of each heavy atom, to write poses into the same file.
        pdbqt: the text it was read from.
    """

    atoms: Atoms
    torsions: tuple[Torsion, ...]
    rotors: float = 0.0
    serials: tuple[int, ...] = ()
    pdbqt: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Line:
    serial: int
    name: str
    position: tuple[float, float, float]
    type: str


def read_receptor(path: Path) -> Atoms:
    """A rigid receptor from PDBQT.

    Raises:
        WindtunnelError: E970 element, E971 unreadable, E972 overlapping atoms.
    """
    lines = [_atom(text, path, n) for n, text in _atom_lines(path.read_text(), path)]
    atoms, _ = _heavy(lines, path)
    return atoms


def read_ligand(path: Path) -> Ligand:
    """A ligand with its torsion tree from PDBQT.

    Raises:
        WindtunnelError: E970 element, E971 unreadable or a tree that does not close, E972 overlapping atoms.
    """
    return parse_ligand(path.read_text(), path)


def parse_ligand(text: str, path: Path) -> Ligand:
    """``read_ligand`` of text; ``path`` only names it in errors."""
    lines: list[_Line] = []
    open_branches: list[tuple[int, int, int]] = []  # serials of the bond, place among the finished ones
    found: list[tuple[int, int, set[int]]] = []
    for number, row in enumerate(text.splitlines(), 1):
        words = row.split()
        if row.startswith(("ATOM", "HETATM")):
            line = _atom(row, path, number)
            lines.append(line)
            for *_, place in open_branches:
                found[place][2].add(line.serial)
        elif words[:1] == ["BRANCH"] and len(words) == 3:
            open_branches.append((int(words[1]), int(words[2]), len(found)))
            found.append((int(words[1]), int(words[2]), set()))
        elif words[:1] == ["ENDBRANCH"] and (
            not open_branches or [str(serial) for serial in open_branches.pop()[:2]] != words[1:]
        ):
            raise _unreadable(path, number, f"{row.strip()} closes no open BRANCH")
    if open_branches:
        raise _unreadable(path, 0, f"BRANCH {open_branches[-1][0]} {open_branches[-1][1]} is never closed")
    if not lines:
        raise _unreadable(path, 0, "no atoms")
    atoms, kept = _heavy(lines, path)
    index = {serial: place for place, serial in enumerate(kept)}
    torsions = []
    for near, far, moved in found:
        if near not in index or far not in index:
            raise _unreadable(path, 0, f"BRANCH {near} {far} names an atom that is not there")
        inside = frozenset(index[serial] for serial in moved if serial in index)
        if len(inside) > 1:  # a lone atom on the axis does not move
            torsions.append(Torsion(index[near], index[far], inside))
    turning = [(index[near], index[far]) for near, far, _ in found]
    return Ligand(atoms, tuple(torsions), _rotors(lines, index, turning), tuple(kept), text)


def _rotors(lines: list[_Line], index: dict[int, int], turning: list[tuple[int, int]]) -> float:
    """Half for each end of a turning bond whose other end holds more heavy atoms than the bond's own."""
    heavy = [line for line in lines if line.serial in index]
    ends = np.concatenate(bonds([_element(a.type) for a in heavy], np.array([a.position for a in heavy])))
    neighbours = np.bincount(ends, minlength=len(heavy))
    return float(sum((neighbours[near] > 1) / 2 + (neighbours[far] > 1) / 2 for near, far in turning))


def _heavy(lines: list[_Line], path: Path) -> tuple[Atoms, list[int]]:
    positions = np.array([line.position for line in lines])
    elements = [_element(line.type) for line in lines]
    acceptor = np.array([line.type in _ACCEPTORS for line in lines])
    _check_apart(lines, positions, path)
    kinds = kinds_of(elements, acceptor, positions)
    heavy = kinds >= 0
    names = tuple(line.name for line, keep in zip(lines, heavy) if keep)
    serials = [line.serial for line, keep in zip(lines, heavy) if keep]
    return Atoms(positions[heavy], kinds[heavy], names), serials


def _check_apart(lines: list[_Line], positions: NDArray[np.float64], path: Path) -> None:
    from scipy.spatial import cKDTree

    pairs = cKDTree(positions).query_pairs(0.5)
    if pairs:
        a, b = min(pairs)
        raise WindtunnelError(
            "E972",
            f"two atoms of {path} lie on each other",
            values={
                "atoms": f"{lines[a].serial} {lines[a].name} and {lines[b].serial} {lines[b].name}",
                "distance": f"{np.linalg.norm(positions[a] - positions[b]):.3f} Å",
            },
            hint="keep one alternate location of each atom, then prepare the structure again",
        )


def _element(atom_type: str) -> str:
    if atom_type in _GLUE:
        return "C"
    return _ELEMENT_OF_TYPE.get(atom_type, atom_type.upper())


def _atom_lines(text: str, path: Path) -> list[tuple[int, str]]:
    rows = [(n, row) for n, row in enumerate(text.splitlines(), 1) if row.startswith(("ATOM", "HETATM"))]
    if not rows:
        raise _unreadable(path, 0, "no atoms")
    return rows


def _atom(row: str, path: Path, number: int) -> _Line:
    try:
        position = (float(row[30:38]), float(row[38:46]), float(row[46:54]))
        line = _Line(
            int(row[6:11]),
            f"{row[17:20].strip()}{row[22:26].strip()}:{row[12:16].strip()}",
            position,
            row[77:79].strip(),
        )
    except ValueError:
        raise _unreadable(path, number, row.rstrip()[:60]) from None
    if not line.type:
        raise _unreadable(path, number, "no PDBQT atom type in columns 78 and 79")
    if not np.isfinite(position).all():
        raise _unreadable(path, number, row.rstrip()[:60])
    return line


def _unreadable(path: Path, number: int, what: str) -> WindtunnelError:
    where = f"{path}:{number}" if number else str(path)
    return WindtunnelError(
        "E971",
        f"{where} is no PDBQT structure: {what}",
        hint="prepare it: python -m windtunnel.workloads.docking prepare --receptor X.pdb --ligand Y.sdf",
    )
