"""Docking as a program: ``python -m windtunnel.workloads.docking dock | score | prepare``.

An ordinary PyTorch program: on the CPU, on any GPU, or on a virtual card with
``windtunnel run --on mtt-s5000 -m windtunnel.workloads.docking dock … --device cuda``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.docking.dock import SPACING_ANGSTROM, box_around, dock, score
from windtunnel.workloads.docking.field import Box
from windtunnel.workloads.docking.poses import read_sdf, rmsd_angstrom, write_sdf
from windtunnel.workloads.docking.prepare import ligand_pdbqt, receptor_pdbqt
from windtunnel.workloads.docking.search import Budget
from windtunnel.workloads.docking.structure import read_ligand, read_receptor

SHOWN = 9
DEFAULT = Budget()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the three commands; 0, or 2 for bad input."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except WindtunnelError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_status
    except FileNotFoundError as error:
        print(f"error: no file {error.filename} [E971]\nhint: check the path", file=sys.stderr)
        return 2


def _dock(args: argparse.Namespace) -> int:
    receptor, ligand = read_receptor(args.receptor), read_ligand(args.ligand)
    if args.centre:
        box = Box(tuple(args.centre), tuple(args.size))
    else:
        box = box_around(read_ligand(args.around or args.ligand), args.margin)
    budget = Budget(args.copies, args.rounds, args.steps)
    device = torch.device(args.device)
    started = time.perf_counter()
    ranked = dock(
        receptor,
        ligand,
        box,
        budget,
        args.seed,
        device,
        dtype=getattr(torch, args.precision),
        spacing_angstrom=args.spacing,
        done=Progress(budget.rounds),
    )
    elapsed_s = time.perf_counter() - started
    reference = read_sdf(args.reference) if args.reference else None
    print(f"{len(ligand.atoms.kinds)} heavy atoms, {len(ligand.torsions)} torsions, {budget.copies} copies")
    print(" pose   affinity kcal/mol" + ("   RMSD Å" if reference else ""))
    for number in range(min(SHOWN, len(ranked.affinity))):
        atoms = ranked.atoms[number].double().numpy()
        far = f"{rmsd_angstrom(ligand, atoms, reference):9.2f}" if reference else ""
        print(f"{number + 1:5d} {ranked.affinity[number].item():19.3f}{far}")
    print(f"docked in {elapsed_s:.1f} s")
    if args.out:
        write_sdf(args.out, ligand, ranked.atoms.double().numpy(), ranked.affinity.double().numpy())
    return 0


def _score(args: argparse.Namespace) -> int:
    found = score(read_receptor(args.receptor), read_ligand(args.ligand))
    print(f"with receptor {found.with_receptor:10.3f} kcal/mol")
    print(f"within ligand {found.within_ligand:10.3f} kcal/mol")
    print(f"affinity      {found.affinity:10.3f} kcal/mol")
    return 0


def _prepare(args: argparse.Namespace) -> int:
    args.out.mkdir(parents=True, exist_ok=True)
    for path, make in ((args.receptor, lambda p: receptor_pdbqt(p, args.drop)), (args.ligand, ligand_pdbqt)):
        if path:
            written = args.out / f"{path.stem}.pdbqt"
            written.write_text(make(path))
            print(f"wrote {written}")
    return 0


class Progress:
    """One line on a terminal, after every round."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def __call__(self, number: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if number + 1 == self._rounds else ""
            print(f"\rround {number + 1} of {self._rounds}", end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m windtunnel.workloads.docking")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("dock", help="find poses of a ligand in a receptor")
    _structures(run, _dock)
    add = run.add_argument
    add("--centre", type=float, nargs=3, metavar=("X", "Y", "Z"), help="middle of the box, Å")
    add("--size", type=float, nargs=3, default=(22.0, 22.0, 22.0), metavar=("X", "Y", "Z"), help="edges, Å")
    add("--around", type=Path, metavar="LIGAND.pdbqt", help="box around this ligand (default: the ligand)")
    add("--margin", type=float, default=5.0, metavar="A", help="what --around leaves on each side, Å")
    add("--spacing", type=float, default=SPACING_ANGSTROM, metavar="A", help="distance of field points, Å")
    add("--copies", type=int, default=DEFAULT.copies, help="poses searched at once")
    add("--rounds", type=int, default=DEFAULT.rounds, help="Monte-Carlo moves of each copy")
    add("--steps", type=int, default=DEFAULT.steps, help="gradient steps after each move")
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="cpu, cuda, musa, …")
    add("--precision", choices=("float32", "float64"), default="float32")
    add("--reference", type=Path, metavar="CRYSTAL.sdf", help="print the distance of each pose from this one")
    add("--out", type=Path, metavar="POSES.sdf", help="write all poses")
    _structures(commands.add_parser("score", help="score a pose as it is"), _score)
    prepare = commands.add_parser("prepare", help="PDB and SDF to PDBQT")
    prepare.add_argument("--receptor", type=Path, metavar="X.pdb")
    prepare.add_argument("--ligand", type=Path, metavar="Y.sdf")
    prepare.add_argument("--drop", nargs="*", default=(), metavar="RES", help="residues to leave out")
    prepare.add_argument("--out", type=Path, required=True, metavar="DIR")
    prepare.set_defaults(command=_prepare)
    return parser


def _structures(parser: argparse.ArgumentParser, command: object) -> None:
    parser.add_argument("--receptor", type=Path, required=True, metavar="X.pdbqt")
    parser.add_argument("--ligand", type=Path, required=True, metavar="Y.pdbqt")
    parser.set_defaults(command=command)


if __name__ == "__main__":
    sys.exit(main())
