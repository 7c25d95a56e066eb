"""`windtunnel science md`: how fast molecular dynamics runs, as a curve over system size."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windtunnel import units
from windtunnel.cli import output
from windtunnel.cli.parser import add_chip_options
from windtunnel.errors import WindtunnelError
from windtunnel.report.text_table import TextColumn, render
from windtunnel.specs.targets import parse_target

if TYPE_CHECKING:
    from windtunnel.specs.cluster import Cluster
    from windtunnel.workloads.md.predict import Decomposed
    from windtunnel.workloads.science.curve import Curve, Point

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT = "mtt-s5000,h100-sxm"
MOST_ATOMS = 1e9
EXAMPLES = """examples:
  windtunnel science md
  windtunnel science md --on mtt-s5000,h100-sxm,rtx-4080 --atoms 23558 1067095
  windtunnel science md --on mtt-s5000:8,h100-sxm:8
  windtunnel science md --eager --atoms 6000 24000
the program itself: python -m windtunnel.workloads.md --help"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel science`."""
    parser = subparsers.add_parser(
        "science",
        help="how fast molecular dynamics runs, against system size",
        description="Predict molecular dynamics of solvated biomolecules (particle-mesh Ewald, rigid water) on chips "
        "and clusters: as a fused engine would run it, and with --eager as our PyTorch program is written.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("what", choices=("md",), metavar="md", help="the program")
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
    add_chip_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and print.

    Raises:
        WindtunnelError: E948, sizes or steps that make no sense; E101 to E109 and E220, the target.
    """
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
    if args.json:
        output.print_json(output.success("science", _json(args, clusters, fused, eager, cut)))
        return 0
    output.print_lines(_page(args, clusters, fused, eager, cut))
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


def _page(
    args: argparse.Namespace,
    clusters: Sequence[Cluster],
    fused: Sequence[Curve],
    eager: Sequence[Curve],
    cut: Sequence[Sequence[Decomposed]],
) -> list[str]:
    from windtunnel.workloads.md.predict import SPONGE_CLAIM, sponge_ratio

    width = output.width()
    copies = f", {args.replicas} replicas together" if args.replicas > 1 else ""
    lines = [f"Molecular dynamics, one card, fused engine, {args.step_fs:g} fs steps{copies}: ns/day", ""]
    lines += _curves(fused, width)
    if eager:
        lines += ["", "The same system, our PyTorch program as written, operation by operation: ns/day", ""]
        lines += _curves(eager, width)
    for cluster, row in zip([c for c in clusters if c.cards > 1], cut):
        lines += ["", f"{cluster.title}: one system cut into {cluster.cards} domains, ns/day", ""]
        lines += _cuts(row, width)
    chips = [cluster.chip for cluster in clusters]
    names = [chip.name for chip in chips]
    if names[:2] == ["mtt-s5000", "h100-sxm"]:
        claim = sponge_ratio(chips[0], chips[1], [int(point.size) for point in fused[0].points])
        gap = [estimate.value for estimate in claim.unexplained]
        lines += [
            "",
            *output.wrapped(
                f"Claimed of SPONGE: {SPONGE_CLAIM} × H100, without size or versions. The hardware as known here gives "
                f"{claim.points[0].rate.value:.2f} × at {claim.points[0].size:,.0f} atoms and "
                f"{claim.points[-1].rate.value:.2f} × at {claim.points[-1].size:,.0f}; what is left, a factor of "
                f"{min(gap):.1f} to {max(gap):.1f}, would be software.",
                width,
            ),
        ]
    lines += _grounds(chips, width)
    return lines


def _curves(curves: Sequence[Curve], width: int) -> list[str]:
    from windtunnel.workloads.science.curve import ratios

    columns = [TextColumn("atoms", right=True)]
    for index, curve in enumerate(curves):
        columns += [
            TextColumn(curve.chip, right=True),
            TextColumn("80 %", right=True, rank=2),
            TextColumn("bound by", rank=3),
        ]
        if index:
            columns += [TextColumn(f"÷ {curve.chip}", right=True), TextColumn("80 %", right=True, rank=1)]
    compared = [ratios(curves[0], curve) for curve in curves[1:]]
    rows = []
    for row, point in enumerate(curves[0].points):
        cells = [f"{point.size:,.0f}"]
        for index, curve in enumerate(curves):
            cells += [*_rate(curve.points[row]), curve.points[row].limit]
            if index:
                cells += _rate(compared[index - 1][row])
        rows.append(cells)
    return render(columns, rows, width)


def _rate(point: Point) -> list[str]:
    rate = point.rate
    return [
        units.significant(rate.value),
        f"{units.significant(rate.low)} – {units.significant(rate.high)}",
    ]


def _cuts(row: Sequence[Decomposed], width: int) -> list[str]:
    columns = [
        TextColumn("atoms", right=True),
        TextColumn("ns/day", right=True),
        TextColumn("80 %", right=True, rank=1),
        TextColumn("compute", right=True),
        TextColumn("halo", right=True),
        TextColumn("transposes", right=True),
    ]
    rows = [
        [
            f"{item.atoms:,}",
            units.significant(item.rate.value),
            f"{units.significant(item.rate.low)} – {units.significant(item.rate.high)}",
            *(units.seconds(part.value) for part in (item.compute, item.halo, item.transposes)),
        ]
        for item in row
    ]
    return render(columns, rows, width)


def _grounds(chips: Sequence[object], width: int) -> list[str]:
    """What the numbers rest on."""
    from windtunnel.specs.schema import Chip
    from windtunnel.workloads.science.engine import assumed_facts, parameters

    text = (
        "Constants: OpenMM 8.4 on A100, RTX 4080 and L40S (openmm.org, July 2026); chips left out of the fit are "
        f"missed by {100 * parameters().spread:.0f} % (one standard deviation), which the intervals hold."
    )
    lines = ["", *output.wrapped(text, width)]
    for chip in chips:
        if isinstance(chip, Chip) and (facts := assumed_facts(chip)):
            told = "; ".join(f"{name}: {why}" for name, why in facts.items())
            lines += output.wrapped(f"{chip.name} is assumed in part. {told}.", width)
    return lines


def _json(
    args: argparse.Namespace,
    clusters: Sequence[Cluster],
    fused: Sequence[Curve],
    eager: Sequence[Curve],
    cut: Sequence[Sequence[Decomposed]],
) -> dict[str, object]:
    from windtunnel.workloads.science.curve import ratios
    from windtunnel.workloads.science.engine import assumed_facts

    def points(found: Sequence[Point]) -> list[dict[str, object]]:
        return [{"atoms": p.size, "rate": p.rate.to_dict(), "limit": p.limit} for p in found]

    cuts = iter(cut)
    return {
        "step_fs": args.step_fs,
        "replicas": args.replicas,
        "curves": [
            {"chip": c.chip, "execution": c.execution, "unit": c.rate_name, "points": points(c.points)}
            for c in (*fused, *eager)
        ],
        "ratios": [
            {"over": fused[0].chip, "under": c.chip, "points": points(ratios(fused[0], c))} for c in fused[1:]
        ],
        "decomposed": [
            {
                "cluster": cluster.name,
                "cards": cluster.cards,
                "points": [
                    {
                        "atoms": d.atoms,
                        "ns_per_day": d.rate.to_dict(),
                        "compute_s": d.compute.to_dict(),
                        "halo_s": d.halo.to_dict(),
                        "transposes_s": d.transposes.to_dict(),
                    }
                    for d in next(cuts)
                ],
            }
            for cluster in clusters
            if cluster.cards > 1
        ],
        "assumed": {cluster.chip.name: assumed_facts(cluster.chip) for cluster in clusters},
    }
