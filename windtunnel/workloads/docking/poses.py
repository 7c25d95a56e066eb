"""Poses as files that other programs read (SDF), and how far they are from a known one.

The prepared ligand carries its SMILES and which atom of it each serial number is, so that a pose becomes a molecule
with bonds again. Needs rdkit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.docking.structure import Ligand


def molecule(ligand: Ligand, positions: NDArray[np.float64]) -> Any:
    """An rdkit molecule with the heavy atoms at ``positions`` (n, 3) in Å.

    Raises:
        WindtunnelError: E973, the ligand's file does not say which molecule it is.
    """
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    smiles, index_of_serial = _remarks(ligand.pdbqt)
    if not smiles or any(serial not in index_of_serial for serial in ligand.serials):
        raise WindtunnelError(
            "E973",
            "the ligand's PDBQT does not say which molecule it is (no REMARK SMILES lines)",
            hint="prepare it from an SDF: python -m windtunnel.workloads.docking prepare --ligand Y.sdf --out DIR",
        )
    made = Chem.MolFromSmiles(smiles)
    shape = Chem.Conformer(made.GetNumAtoms())
    for serial, position in zip(ligand.serials, positions):
        shape.SetAtomPosition(index_of_serial[serial], Point3D(*(float(x) for x in position)))
    made.AddConformer(shape, assignId=True)
    return made


def rmsd_angstrom(ligand: Ligand, positions: NDArray[np.float64], reference: Any) -> float:
    """Root mean square distance of heavy atoms from ``reference`` (rdkit molecule), symmetric atoms exchanged,
    nothing moved.

    Raises:
        WindtunnelError: E973; E974, the two are different molecules.
    """
    from rdkit.Chem import rdMolAlign

    ours, theirs = (_bare(m) for m in (molecule(ligand, positions), reference))
    try:
        return float(rdMolAlign.CalcRMS(ours, theirs))
    except RuntimeError:
        from rdkit import Chem

        raise WindtunnelError(
            "E974",
            "the reference is another molecule than the ligand",
            values={"ligand": Chem.MolToSmiles(ours), "reference": Chem.MolToSmiles(theirs)},
            hint="give the crystal pose of the same ligand with --reference",
        ) from None


def read_sdf(path: Path) -> Any:
    """The first molecule of an SDF file, with its hydrogens.

    Raises:
        WindtunnelError: E971, rdkit cannot read it.
    """
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]  # not in rdkit's stubs
    molecules = [m for m in Chem.SDMolSupplier(str(path), removeHs=False) if m is not None]
    if not molecules:
        raise WindtunnelError(
            "E971",
            f"{path} holds no molecule that rdkit reads",
            hint="open it in a viewer; save it as SDF V2000",
        )
    return molecules[0]


def write_sdf(
    path: Path, ligand: Ligand, positions: NDArray[np.float64], affinities: NDArray[np.float64]
) -> None:
    """All poses, best first, with their affinity in kcal/mol as a property."""
    from rdkit import Chem

    with Chem.SDWriter(str(path)) as out:
        for number, (pose, affinity) in enumerate(zip(positions, affinities), 1):
            made = molecule(ligand, pose)
            made.SetProp("_Name", f"pose {number}")
            made.SetProp("affinity_kcal_per_mol", f"{affinity:.3f}")
            out.write(made)


def _remarks(pdbqt: str) -> tuple[str, dict[int, int]]:
    smiles, index_of_serial = "", {}
    for row in pdbqt.splitlines():
        words = row.split()
        if words[:3] == ["REMARK", "SMILES", "IDX"]:
            numbers = [int(word) for word in words[3:]]
            index_of_serial.update({serial: index - 1 for index, serial in zip(numbers[::2], numbers[1::2])})
        elif words[:2] == ["REMARK", "SMILES"]:
            smiles = words[2]
    return smiles, index_of_serial


def _bare(molecule: Any) -> Any:
    """Heavy atoms without charges or bond orders: two files of one molecule may differ in those."""
    from rdkit import Chem

    bare = Chem.RWMol()
    heavy = [atom for atom in molecule.GetAtoms() if atom.GetAtomicNum() > 1]
    place = {atom.GetIdx(): bare.AddAtom(Chem.Atom(atom.GetAtomicNum())) for atom in heavy}
    for bond in molecule.GetBonds():
        begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if begin in place and end in place:
            bare.AddBond(place[begin], place[end], Chem.BondType.SINGLE)
    shape = Chem.Conformer(len(place))
    positions = molecule.GetConformer().GetPositions()
    for old, new in place.items():
        shape.SetAtomPosition(new, [float(x) for x in positions[old]])
    done = bare.GetMol()
    done.AddConformer(shape, assignId=True)
    Chem.SanitizeMol(done, Chem.SanitizeFlags.SANITIZE_NONE)
    return done
