"""`windtunnel science md | docking`: how fast they run, as a curve over size."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel import units
from windtunnel.cli import output, science_answer, science_docking
from windtunnel.cli.parser import add_chip_options
from windtunnel.errors import WindtunnelError
from windtunnel.specs.targets import parse_target

if TYPE_CHECKING:
    from windtunnel.specs.cluster import Cluster
    from windtunnel.workloads.science.curve import Curve

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT = "mtt-s5000,h100-sxm"
MOST_ATOMS = 1e9
EXAMPLES = """examples:
  windtunnel science md
  windtunnel science md --on mtt-s5000,h100-sxm,rtx-4080 --atoms 23558 1067095
  windtunnel science md --on mtt-s5000:8,h100-sxm:8
  windtunnel science md --eager --atoms 6000 24000
  windtunnel science docking --on mtt-s5000,h100-sxm
the programs: python -m windtunnel.workloads.md --help, python -m windtunnel.workloads.docking --help"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel science`."""
    parser = subparsers.add_parser(
        "science",
        help="how fast molecular dynamics and docking run, against size",
        description="Predict molecular dynamics of solvated biomolecules (particle-mesh Ewald, rigid water) on chips "
        "and clusters: as a fused engine would run it, and with --eager as our PyTorch program is written. "
        "docking: ligands a second, launched singly and in batches.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("what", choices=("md", "docking"), metavar="md | docking", help="the program")
    add("--on", default=DEFAULT, metavar="CHIP[:CARDS],...", help=f"chips or clusters (default: {DEFAULT})")
    add(
        "--atoms",
        type=units.parse_count,
        nargs="+",
        metavar="N",
        help="system sizes (default: 2,500 to 4 million)",
    )
    add("--step-fs", type=float, default=4.0, help="length of a time step, fs (default: 4)")
    add("--replicas", type=int, default=1, metavar="N", help="copies of the system side by side on a card")
    add("--eager", action="store_true", help="also record our PyTorch program and price it as written")
    add("--report", type=Path, metavar="FILE.html", help="also write the curves as a page")
    add_chip_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and print.

    Raises:
        WindtunnelError: E948, sizes or steps that make no sense; E101 to E109 and E220, the target.
    """
    if args.what == "docking":
        return science_docking.run(args)
    sizes = _sizes(args)
    clusters = parse_target(args.on, args.set, args.chips)
    from windtunnel.workloads.md import predict as md

    fused = [
        md.fused_curve(cluster.chip, sizes, step_fs=args.step_fs, replicas=args.replicas)
        for cluster in clusters
    ]
    eager = _eager(args, clusters, sizes) if args.eager else []
    cut = [
        [md.decomposed(cluster, atoms, step_fs=args.step_fs) for atoms in sizes]
        for cluster in clusters
        if cluster.cards > 1
    ]
    if args.report:
        science_answer.write_page(args, clusters, fused, eager)
    if args.json:
        output.print_json(
            output.success("science", science_answer.as_json(args, clusters, fused, eager, cut))
        )
        return 0
    output.print_lines(science_answer.page(args, clusters, fused, eager, cut))
    return 0


def _sizes(args: argparse.Namespace) -> tuple[int, ...]:
    from windtunnel.workloads.md.predict import SIZES

    sizes = tuple(sorted({int(size) for size in args.atoms})) if args.atoms else SIZES
    if args.eager and not args.atoms:
        sizes = tuple(size for size in sizes if size <= 100_000)
    if not all(1_000 <= size <= MOST_ATOMS for size in sizes) or not 0.01 <= args.step_fs <= 20:
        raise WindtunnelError(
            "E948",
            "a solvated system has from 1,000 to 1e9 atoms, and a time step lasts from 0.01 to 20 fs",
            hint="windtunnel science md --atoms 23558 --step-fs 4",
            values={"atoms": ", ".join(map(str, sizes)), "step_fs": args.step_fs},
        )
    if args.replicas < 1:
        raise WindtunnelError("E948", f"{args.replicas} replicas are none", hint="--replicas 8")
    return sizes


def _eager(args: argparse.Namespace, clusters: Sequence[Cluster], sizes: Sequence[int]) -> list[Curve]:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise WindtunnelError(
            "E434",
            "recording a script needs PyTorch, which is not installed",
            hint="pip install 'windtunnel[torch]'",
        )
    from windtunnel.workloads.md.record import eager_curve

    with output.Progress("recording", quiet=args.quiet) as progress:
        curves = []
        for cluster in clusters:
            progress.update(cluster.chip.name)
            curves.append(eager_curve(cluster.chip, sizes, step_fs=args.step_fs))
    return curves
