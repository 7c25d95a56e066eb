from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.workloads.docking.structure import Atoms, Ligand, read_ligand, read_receptor

EXAMPLES = Path(__file__).parents[4] / "examples" / "docking"


@pytest.fixture(scope="session")
def examples() -> Path:
    return EXAMPLES


@pytest.fixture(scope="session")
def receptor() -> Atoms:
    return read_receptor(EXAMPLES / "1iep_receptor.pdbqt")


@pytest.fixture(scope="session")
def ligand() -> Ligand:
    return read_ligand(EXAMPLES / "1iep_ligand.pdbqt")
