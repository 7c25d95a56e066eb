"""What `windtunnel science` answers: tables, JSON and the page of curves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windtunnel import units
from windtunnel.cli import output
from windtunnel.report.text_table import TextColumn, render

if TYPE_CHECKING:
    from windtunnel.specs.cluster import Cluster
    from windtunnel.workloads.md.predict import Decomposed
    from windtunnel.workloads.science.curve import Curve, Point


def page(
    args: argparse.Namespace,
    clusters: Sequence[Cluster],
    fused: Sequence[Curve],
    eager: Sequence[Curve],
    cut: Sequence[Sequence[Decomposed]],
) -> list[str]:
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
    if claim := _claim(clusters, fused):
        lines += ["", *output.wrapped(claim, width)]
    chips = [cluster.chip for cluster in clusters]
    lines += _grounds(chips, width)
    return lines


def _claim(clusters: Sequence[Cluster], fused: Sequence[Curve]) -> str:
    """The claimed ratio beside the predicted ones, where the two chips of the claim come first."""
    from windtunnel.workloads.md.predict import SPONGE_CLAIM, sponge_ratio

    chips = [cluster.chip for cluster in clusters]
    if [chip.name for chip in chips[:2]] != ["mtt-s5000", "h100-sxm"]:
        return ""
    claim = sponge_ratio(chips[0], chips[1], [int(point.size) for point in fused[0].points])
    gap = [estimate.value for estimate in claim.unexplained]
    first, last = claim.points[0], claim.points[-1]
    return (
        f"Claimed of SPONGE: {SPONGE_CLAIM} × H100, without size or versions. The hardware as known here gives "
        f"{first.rate.value:.2f} × at {first.size:,.0f} atoms and {last.rate.value:.2f} × at {last.size:,.0f}; "
        f"what is left, a factor of {min(gap):.1f} to {max(gap):.1f}, would be software."
    )


def write_page(
    args: argparse.Namespace, clusters: Sequence[Cluster], fused: Sequence[Curve], eager: Sequence[Curve]
) -> None:
    from windtunnel.report import curve_page
    from windtunnel.workloads.md.predict import SPONGE_CLAIM
    from windtunnel.workloads.science.curve import ratios
    from windtunnel.workloads.science.engine import assumed_facts

    claim = _claim(clusters, fused)
    best = fused[0].points[0]
    made = curve_page.Page(
        title="Molecular dynamics against system size",
        answer=claim or f"{best.rate.value:,.0f} ns/day at {best.size:,.0f} atoms on {fused[0].chip}",
        curves=(*fused, *eager),
        ratios=[(f"{fused[0].chip} ÷ {c.chip}", ratios(fused[0], c)) for c in fused[1:]],
        claim=SPONGE_CLAIM if claim else None,
        grounds=_constants(),
        assumed={cluster.chip.name: assumed_facts(cluster.chip) for cluster in clusters},
    )
    curve_page.write(made, args.report)
    output.say(f"wrote {args.report}", quiet=args.quiet)


def _constants() -> str:
    from windtunnel.workloads.science.engine import parameters

    return (
        "Constants: OpenMM 8.4 on A100, RTX 4080 and L40S (openmm.org, July 2026); chips left out of the fit are "
        f"missed by {100 * parameters().spread:.0f} % (one standard deviation), which the intervals hold."
    )


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
    from windtunnel.workloads.science.engine import assumed_facts

    lines = ["", *output.wrapped(_constants(), width)]
    for chip in chips:
        if isinstance(chip, Chip) and (facts := assumed_facts(chip)):
            told = "; ".join(f"{name}: {why}" for name, why in facts.items())
            lines += output.wrapped(f"{chip.name} is assumed in part. {told}.", width)
    return lines


def as_json(
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
