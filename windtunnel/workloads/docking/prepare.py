"""From a crystal structure to what the score needs: PDBQT atom types, polar hydrogens, a torsion tree.

Ligands go through meeko. Receptors are typed residue by residue here: which atoms of the twenty amino acids donate or
accept is fixed chemistry, and only histidine needs the hydrogens of the file (without them its NE2 donates, as most
programs assume). Waters are left out; any other residue must be named, to be dropped, or carry its hydrogens.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.docking.kinds import METALS, bonds
from windtunnel.workloads.docking.poses import read_sdf

WATER = frozenset("HOH WAT DOD TIP3 SOL".split())
_DONORS = {
    "ARG": "NE NH1 NH2", "ASN": "ND2", "GLN": "NE2", "LYS": "NZ", "SER": "OG", "THR": "OG1", "TYR": "OH",
    "TRP": "NE1", "HID": "ND1", "HIE": "NE2", "HIP": "ND1 NE2",
}  # fmt: skip
_ACCEPTING_NITROGEN = {"HID": "NE2", "HIE": "ND1"}
_AROMATIC = {
    "PHE": "CG CD1 CD2 CE1 CE2 CZ", "TYR": "CG CD1 CD2 CE1 CE2 CZ", "TRP": "CG CD1 CD2 CE2 CE3 CZ2 CZ3 CH2",
    "HID": "CG CD2 CE1", "HIE": "CG CD2 CE1", "HIP": "CG CD2 CE1",
}  # fmt: skip
AMINO_ACIDS = frozenset(
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split()
)
_SAME_RESIDUE = {"HSD": "HID", "HSE": "HIE", "HSP": "HIP", "CYX": "CYS", "MSE": "MET"}


@dataclass(frozen=True, slots=True)
class _PdbAtom:
    row: str
    name: str
    residue: str
    place: str  # chain, number and insertion code
    element: str

    @property
    def position(self) -> NDArray[np.float64]:
        """(3,) in Å."""
        return np.array([float(self.row[30:38]), float(self.row[38:46]), float(self.row[46:54])])


def receptor_pdbqt(path: Path, drop: Collection[str] = ()) -> str:
    """The receptor of a PDB file as PDBQT: heavy atoms, typed, with a marker hydrogen on every donor.

    Args:
        drop: residue names to leave out, such as a cofactor's.

    Raises:
        WindtunnelError: E971 unreadable; E975 residues whose chemistry the file does not tell.
    """
    atoms = [_pdb_atom(row) for row in path.read_text().splitlines() if row.startswith(("ATOM", "HETATM"))]
    atoms = [a for a in atoms if a.residue not in WATER and a.residue not in drop and a.row[16] in " A1"]
    if not atoms:
        raise WindtunnelError(
            "E971", f"{path} holds no receptor atoms", hint="give a PDB file with ATOM lines"
        )
    has_hydrogen = {a.place for a in atoms if a.element == "H"}
    names = {(a.place, a.name) for a in atoms}
    _check_known(path, atoms, has_hydrogen)
    known = AMINO_ACIDS | set(_SAME_RESIDUE)
    kept = [a for a in atoms if a.element != "H" or a.residue not in known]  # their donors are known by name
    outward = _away_from_neighbours(kept)
    rows: list[str] = []
    for index, atom in enumerate(kept):
        rows.append(_row(len(rows) + 1, atom, atom.name, _type(atom, names), atom.position))
        if _donates(atom, names):
            rows.append(_row(len(rows) + 1, atom, f"H{atom.name}", "HD", atom.position + outward[index]))
    return "\n".join(rows) + "\n"


def _away_from_neighbours(atoms: list[_PdbAtom]) -> NDArray[np.float64]:
    """(n, 3) unit vectors from the middle of the atoms bonded to each: where one hydrogen of a donor lies."""
    positions = np.array([atom.position for atom in atoms])
    first, second = bonds([atom.element for atom in atoms], positions)
    outward = np.zeros_like(positions)
    along = positions[first] - positions[second]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    np.add.at(outward, first, along)
    np.add.at(outward, second, -along)
    length = np.linalg.norm(outward, axis=1, keepdims=True)
    return np.where(length > 1e-6, outward / np.maximum(length, 1e-6), [1.0, 0.0, 0.0])


def ligand_pdbqt(path: Path) -> str:
    """The molecule of an SDF file as PDBQT with its torsion tree; hydrogens are added where they are missing.

    Raises:
        WindtunnelError: E971 unreadable; E976, meeko cannot prepare it.
    """
    from meeko import MoleculePreparation, PDBQTWriterLegacy
    from rdkit import Chem

    made = Chem.AddHs(read_sdf(path), addCoords=True)
    (setup,) = MoleculePreparation().prepare(made)
    text, well, why = PDBQTWriterLegacy.write_string(setup)
    if not well:
        raise WindtunnelError(
            "E976", f"{path} cannot be prepared", values={"meeko": why}, hint="check the SDF"
        )
    return str(text)


def _check_known(path: Path, atoms: list[_PdbAtom], has_hydrogen: set[str]) -> None:
    known = AMINO_ACIDS | set(_SAME_RESIDUE) | set(_SAME_RESIDUE.values())
    strange = sorted(
        {
            f"{a.residue} {a.place}"
            for a in atoms
            if a.residue not in known and a.element not in METALS and a.place not in has_hydrogen
        }
    )
    if strange:
        name = strange[0].split()[0]
        raise WindtunnelError(
            "E975",
            f"{path}: residues without hydrogens whose donors and acceptors are not known",
            values={
                "residues": ", ".join(strange[:6]) + (f" and {len(strange) - 6} more" if strange[6:] else "")
            },
            hint=f"add their hydrogens to the file, or leave them out: --drop {name}",
        )


def _pdb_atom(row: str) -> _PdbAtom:
    name = row[12:16].strip()
    element = row[76:78].strip().upper() or name.lstrip("0123456789")[:1]
    return _PdbAtom(
        row, name, row[17:20].strip(), " ".join(row[21:27].split()), "H" if element == "D" else element
    )


def _residue(atom: _PdbAtom, names: set[tuple[str, str]]) -> str:
    if atom.residue != "HIS":
        return _SAME_RESIDUE.get(atom.residue, atom.residue)
    on_delta, on_epsilon = ((atom.place, name) in names for name in ("HD1", "HE2"))
    return "HIP" if on_delta and on_epsilon else "HID" if on_delta else "HIE"


def _donates(atom: _PdbAtom, names: set[tuple[str, str]]) -> bool:
    residue = _residue(atom, names)
    if residue not in AMINO_ACIDS and residue not in _DONORS:
        return False  # its hydrogens are in the file
    if atom.name == "N":
        return residue != "PRO"
    return atom.name in _DONORS.get(residue, "").split()


def _type(atom: _PdbAtom, names: set[tuple[str, str]]) -> str:
    residue = _residue(atom, names)
    if atom.element == "O":
        return "OA"
    if atom.element == "S":
        return "SA"
    if atom.element == "N":
        if residue in AMINO_ACIDS or residue in _DONORS:
            return "NA" if atom.name == _ACCEPTING_NITROGEN.get(residue) else "N"
        return "NA"  # a cofactor's nitrogen: it accepts, and donates where the file has its hydrogen
    if atom.element == "C":
        return "A" if atom.name in _AROMATIC.get(residue, "").split() else "C"
    return {"H": "HD", "CL": "Cl", "BR": "Br"}.get(atom.element, atom.element.capitalize())


def _row(serial: int, atom: _PdbAtom, name: str, kind: str, position: NDArray[np.float64]) -> str:
    x, y, z = position
    label = f" {name:<3s}" if len(name) < 4 else name[:4]
    return (
        f"ATOM  {serial % 100000:5d} {label} {atom.row[17:27]:<10s}   {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
        f"     0.000 {kind:<2s}"
    )
