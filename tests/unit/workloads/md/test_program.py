"""The program as a user runs it: files in, files out, mistakes, and the virtual card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from windtunnel.api import load, predict
from windtunnel.cli.main import main as windtunnel
from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md.__main__ import main
from windtunnel.workloads.md.forces import ForceField
from windtunnel.workloads.md.output import Trajectory
from windtunnel.workloads.md.read import read_pdb
from windtunnel.workloads.md.trouble import check_start
from windtunnel.workloads.md.water import water_box

from . import inputs

SMALL = ["--waters", "216", "--cutoff-nm", "0.8", "--step-fs", "1", "--minimize", "20", "--device", "cpu"]


@pytest.mark.filterwarnings("ignore:Warning. The 'netCDF4':UserWarning")  # mdtraj's, when it reads
@pytest.mark.parametrize("suffix", ["dcd", "xtc", "nc"])
def test_other_tools_read_what_is_written(suffix: str, tmp_path: Path) -> None:
    mdtraj = pytest.importorskip("mdtraj")
    path, energies = tmp_path / f"run.{suffix}", tmp_path / "energies.csv"
    line = [*SMALL, "--steps", "4", "--every", "2", "--trajectory", str(path), "--energies", str(energies)]
    assert main(line) == 0
    topology = mdtraj.Topology()
    for _ in range(216):
        residue = topology.add_residue("HOH", topology.add_chain())
        for name, element in (("O", "oxygen"), ("H1", "hydrogen"), ("H2", "hydrogen")):
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(element[0].upper()), residue)
    frames = mdtraj.load(str(path), top=topology)
    assert frames.n_frames == 2
    edge = (216 / 33.3) ** (1 / 3)
    assert frames.unitcell_lengths[0] == pytest.approx([edge] * 3, rel=1e-4)
    bond = np.linalg.norm(frames.xyz[-1, 1] - frames.xyz[-1, 0])
    assert bond == pytest.approx(0.09572, abs=1e-3)
    table = np.genfromtxt(energies, delimiter=",", skip_header=1)
    assert table[:, 0].tolist() == [2, 4]
    assert table[:, 4] == pytest.approx(table[:, 2] + table[:, 3])


def test_a_pdb_gets_its_parameters() -> None:
    system = read_pdb(inputs.data("alanine-dipeptide-explicit/alanine-dipeptide.pdb"))
    assert system.atoms > 2000
    assert system.names[0].startswith("ACE1:")
    assert len(system.terms.constraints) > 0


def prmtop(tmp_path: Path, change: object) -> Path:
    text = inputs.data(inputs.WATER[0]).read_text()
    path = tmp_path / "broken.prmtop"
    path.write_text(change(text))  # type: ignore[operator]
    return path


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("E940", ["missing.prmtop", "missing.inpcrd"]),
        ("E940", []),
        ("E940", ["{water}"]),
        ("E940", ["{cut}", "{coordinates}"]),
        ("E940", ["{nonsense}", "{coordinates}"]),
        ("E941", ["{water}", "{other}"]),
        ("E941", ["--waters", "20"]),
        ("E941", ["{water}", "{vacuum}"]),
        ("E941", ["{alanine}", "{other}", "--cutoff-nm", "1.7"]),
        ("E942", ["{bare}"]),
        ("E946", [*SMALL, "--trajectory", "run.trr"]),
        ("E946", [*SMALL, "--energies", "no/such/folder.csv"]),
        ("E947", [*SMALL, "--restart", "missing.chk"]),
        ("E947", [*SMALL, "--restart", "{cut}"]),
    ],
)
def test_mistakes_are_named(
    code: str, line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.pdb"
    bare.write_text("ATOM      1  CA  ALA A   1       0.000   0.000   0.000  1.00  0.00           C\nEND\n")
    nonsense = tmp_path / "nonsense.prmtop"
    nonsense.write_text("this is no parameter file\n")
    vacuum = tmp_path / "vacuum.inpcrd"
    lines = inputs.data(inputs.WATER[1]).read_text().splitlines()
    vacuum.write_text("\n".join(lines[: 2 + 324]) + "\n")
    files = {
        "water": inputs.data(inputs.WATER[0]),
        "coordinates": inputs.data(inputs.WATER[1]),
        "alanine": inputs.data(inputs.ALANINE[0]),
        "other": inputs.data(inputs.ALANINE[1]),
        "cut": prmtop(tmp_path, lambda text: text[: len(text) // 2]),
        "nonsense": nonsense,
        "bare": bare,
        "vacuum": vacuum,
    }
    extra = ["--electrostatics", "pme"] if "{vacuum}" in line else []
    status = main([word.format(**files) for word in line] + extra)
    error = capsys.readouterr().err
    assert status == 2
    assert f"[{code}]" in error
    assert "hint: " in error
    assert "Traceback" not in error


def test_interactions_that_are_not_computed_are_refused() -> None:
    openmm = inputs.openmm
    made, positions = inputs.openmm_system(inputs.WATER, cutoff_nm=0.8)
    made.addForce(openmm.CustomBondForce("r"))
    from windtunnel.workloads.md.read import from_openmm

    with pytest.raises(WindtunnelError, match="CustomBondForce") as caught:
        from_openmm(made, positions)
    assert caught.value.code == "E943"


def test_atoms_on_top_of_each_other_are_named() -> None:
    import torch

    system = water_box(216, cutoff_nm=0.8)
    x = torch.from_numpy(system.positions_nm).clone()
    x[30] = x[3] + 0.01
    with pytest.raises(WindtunnelError, match="HOH2:O and HOH11:O overlap") as caught:
        check_start(ForceField(system), x)
    assert caught.value.code == "E941"
    x[5] = torch.nan
    with pytest.raises(WindtunnelError, match="HOH2:H2 are not numbers"):
        check_start(ForceField(system), x)


def test_an_explosion_keeps_the_last_good_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, line = tmp_path / "good.chk", ["--waters", "216", "--cutoff-nm", "0.8", "--flexible"]
    wild = [*line, "--step-fs", "9", "--nve", "--steps", "400", "--checkpoint", str(good)]
    assert main([*wild, "--checkpoint-every", "1", "--temperature", "600"]) == 2
    error = capsys.readouterr().err
    assert "exploded in step" in error
    assert f"last_good_checkpoint: {good}" in error


def test_a_restarted_run_says_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = str(tmp_path / "run.chk")
    assert main([*SMALL, "--steps", "3", "--checkpoint", saved]) == 0
    capsys.readouterr()
    assert main([*SMALL, "--steps", "5", "--restart", saved]) == 0
    assert "continued from step 3" in capsys.readouterr().out
    assert main([*SMALL, "--precision", "double", "--restart", saved]) == 2


def test_a_format_is_refused_before_the_run() -> None:
    with pytest.raises(WindtunnelError, match="no trajectory format"):
        Trajectory(Path("run.pdbx"), water_box(216, cutoff_nm=0.8))


@pytest.mark.parametrize("precision", ["single", "double"])
def test_the_program_runs_on_the_card_as_it_is(precision: str, tmp_path: Path) -> None:
    recording = str(tmp_path / "md.wt")
    script = tmp_path / "simulate.py"
    script.write_text("import sys\nfrom windtunnel.workloads.md.__main__ import main\nsys.exit(main())\n")
    line = [str(script), "--waters", "600", "--steps", "2", "--precision", precision]
    assert windtunnel(["run", "-q", "--on", "mtt-s5000", "--out", recording, *line]) == 0
    program = load(recording)
    names = {spec.base_name for spec in program.specs}
    assert {"aten._fft_r2c", "aten._fft_c2r", "aten.index_add_", "aten.nonzero_static"} <= names
    families = {work.family.value for work in program.works}
    assert "unknown" not in families
    assert any(work.precision == "fp64" for work in program.works)
    slow, fast = predict(program, "mtt-s5000"), predict(program, "h100-sxm")
    assert slow.step_time_s.value > fast.step_time_s.value
    assert any("fp64" in fact for fact in slow.assumptions)


def test_values_on_the_card_are_those_of_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [word for word in SMALL if word not in ("--device", "cpu")]
    line += ["--steps", "3", "--every", "3", "--precision", "double"]
    assert main([*line, "--device", "cpu"]) == 0
    on_cpu = capsys.readouterr().out.splitlines()[-1].split()
    script = tmp_path / "simulate.py"
    script.write_text("import sys\nfrom windtunnel.workloads.md.__main__ import main\nsys.exit(main())\n")
    recording = str(tmp_path / "md.wt")
    assert windtunnel(["run", "--values", "--on", "mtt-s5000", "--out", recording, str(script), *line]) == 0
    printed = capsys.readouterr().out.splitlines()
    on_card = next(row.split() for row in printed if row.split()[:1] == ["3"])
    assert on_card[:5] == on_cpu[:5]  # step, time, both energies and the temperature, as printed
