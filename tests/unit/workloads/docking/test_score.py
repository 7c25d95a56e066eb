"""The score against AutoDock Vina 1.2.7: recorded, and live where the package is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.workloads.docking.dock import score
from windtunnel.workloads.docking.structure import read_ligand, read_receptor

# Vina 1.2.7, score() of the crystal pose: affinity, with the receptor, within the ligand (kcal/mol).
RECORDED = {"1iep": (-12.513, -17.634, -0.485), "1s3v": (-8.966, -12.373, -0.558)}


@pytest.mark.parametrize("name", RECORDED)
def test_crystal_poses_score_as_in_vina(examples: Path, name: str) -> None:
    found = score(
        read_receptor(examples / f"{name}_receptor.pdbqt"), read_ligand(examples / f"{name}_ligand.pdbqt")
    )
    affinity, outside, inside = RECORDED[name]
    assert found.with_receptor == pytest.approx(outside, rel=1e-3)
    assert found.affinity == pytest.approx(affinity, rel=1e-3)
    assert found.within_ligand == pytest.approx(inside, abs=0.01)  # Vina's table is coarser than three digits


def test_wrong_hydrogen_bond_typing_is_noticed(examples: Path, tmp_path: Path) -> None:
    text = (examples / "1iep_ligand.pdbqt").read_text()
    without = "\n".join(row for row in text.splitlines() if not row.rstrip().endswith("HD"))
    wrong = tmp_path / "no_donors.pdbqt"
    wrong.write_text(without)
    found = score(read_receptor(examples / "1iep_receptor.pdbqt"), read_ligand(wrong))
    assert abs(found.with_receptor / RECORDED["1iep"][1] - 1) > 0.02


@pytest.mark.parametrize("name", ["1ia1", "1of6", "1s3v", "1uou"])
def test_prepared_crystal_structures_score_as_in_vina(name: str, tmp_path: Path) -> None:
    vina = pytest.importorskip("vina", reason="AutoDock Vina is not installed")
    posebusters = pytest.importorskip("posebusters", reason="posebusters is not installed")
    from windtunnel.workloads.docking.prepare import ligand_pdbqt, receptor_pdbqt

    folder = Path(posebusters.__file__).parent / "datasets" / "pdb" / name
    protein, small = tmp_path / "receptor.pdbqt", tmp_path / "ligand.pdbqt"
    protein.write_text(receptor_pdbqt(folder / f"{name}_protein_one_lig_removed.pdb", drop=("NDP", "TQ3")))
    small.write_text(ligand_pdbqt(folder / f"{name}_ligand.sdf"))
    ligand = read_ligand(small)
    peer = vina.Vina(sf_name="vina", verbosity=0)
    peer.set_receptor(str(protein))
    peer.set_ligand_from_file(str(small))
    peer.compute_vina_maps(ligand.atoms.positions.mean(0).tolist(), [26, 26, 26])
    affinity, outside = peer.score()[:2]
    found = score(read_receptor(protein), ligand)
    assert found.with_receptor == pytest.approx(outside, rel=1e-3)
    assert found.affinity == pytest.approx(affinity, rel=1e-3)
