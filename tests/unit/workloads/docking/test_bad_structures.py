"""Broken structures end in coded errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.docking.__main__ import main
from windtunnel.workloads.docking.dock import dock
from windtunnel.workloads.docking.field import Box
from windtunnel.workloads.docking.prepare import receptor_pdbqt
from windtunnel.workloads.docking.search import Budget
from windtunnel.workloads.docking.structure import Atoms, Ligand, parse_ligand, read_receptor

HERE = Path("x.pdbqt")
ROW = "ATOM  {:5d}  C   UNL     1    {:8.3f}   0.000   0.000  1.00  0.00     0.000 {:<2s}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "E971"),
        ("REMARK nothing\n", "E971"),
        (ROW.format(1, 0.0, "C").replace("0.000 ", "zero  ", 1), "E971"),
        (ROW.format(1, 0.0, "C")[:70], "E971"),
        (ROW.format(1, 0.0, "Xx"), "E970"),
        (ROW.format(1, 0.0, "C") + "\n" + ROW.format(2, 0.1, "C"), "E972"),
        ("BRANCH 1 2\n" + ROW.format(1, 0.0, "C"), "E971"),
        ("ENDBRANCH 1 2\n" + ROW.format(1, 0.0, "C"), "E971"),
        (f"BRANCH 8 9\n{ROW.format(1, 0.0, 'C')}\nENDBRANCH 8 9", "E971"),
    ],
)
def test_broken_ligands(text: str, code: str) -> None:
    with pytest.raises(WindtunnelError) as caught:
        parse_ligand(text, HERE)
    assert caught.value.code == code
    assert caught.value.hint


def test_unknown_residues_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.pdb"
    path.write_text("HETATM    1  C1  LIG A   7       0.000   0.000   0.000  1.00  0.00           C\n")
    with pytest.raises(WindtunnelError, match="not known") as caught:
        receptor_pdbqt(path)
    assert caught.value.code == "E975"
    assert "LIG A 7" in str(caught.value)
    with pytest.raises(WindtunnelError, match="no receptor atoms"):
        receptor_pdbqt(path, drop=("LIG",))


def test_a_box_beside_the_receptor(receptor: Atoms, ligand: Ligand) -> None:
    with pytest.raises(WindtunnelError) as caught:
        dock(
            receptor,
            ligand,
            Box((500.0, 0.0, 0.0), (20.0, 20.0, 20.0)),
            Budget(4, 1, 1),
            0,
            torch.device("cpu"),
        )
    assert caught.value.code == "E977"


def test_a_missing_file_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "no.pdbqt")
    assert main(["score", "--receptor", missing, "--ligand", missing]) == 2
    assert "E971" in capsys.readouterr().err


def test_a_receptor_is_typed_by_residue_and_its_own_hydrogens(tmp_path: Path) -> None:
    path, made = tmp_path / "r.pdb", tmp_path / "r.pdbqt"
    path.write_text(
        "ATOM      1  N   HIS A   1       0.000   0.000   0.000  1.00  0.00           N\n"
        "ATOM      2  CA  HIS A   1       1.450   0.000   0.000  1.00  0.00           C\n"
        "ATOM      3  ND1 HIS A   1       5.000   0.000   0.000  1.00  0.00           N\n"
        "ATOM      4  NE2 HIS A   1       9.000   0.000   0.000  1.00  0.00           N\n"
        "ATOM      5  O   HOH A   9      20.000   0.000   0.000  1.00  0.00           O\n"
        "HETATM    6 ZN    ZN A 201      15.000   0.000   0.000  1.00  0.00          ZN\n"
    )
    made.write_text(receptor_pdbqt(path))
    from windtunnel.workloads.docking.kinds import KINDS

    kinds = [KINDS[k].name for k in read_receptor(made).kinds]
    assert kinds == ["N_donor", "C_polar", "N_acceptor", "N_donor", "metal"]
