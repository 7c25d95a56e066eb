"""`windtunnel science docking`: ligands a second on chips, by how the search is launched."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windtunnel.cli import output
from windtunnel.report.text_table import Shorten, TextColumn, render
from windtunnel.specs.targets import parse_target

if TYPE_CHECKING:
    from windtunnel.specs.schema import Chip
    from windtunnel.workloads.science.curve import Curve

BATCHES = (1, 4, 16, 64, 256, 1024)


def run(args: argparse.Namespace) -> int:
    """Predict and print. Raises what the target raises: E101 to E109, E220."""
    from windtunnel.workloads.docking.engine_kernels import MEAN_LIGAND, ligands_per_second, one_by_one

    chips = [cluster.chip for cluster in parse_target(args.on, args.set, args.chips)]
    curves = [ligands_per_second(MEAN_LIGAND, chip, BATCHES) for chip in chips]
    singly = [one_by_one(MEAN_LIGAND, chip) for chip in chips]
    if args.json:
        output.print_json(output.success("science.docking", _as_json(curves, singly)))
    else:
        output.print_lines(_lines(chips, curves, singly))
    return 0


def _lines(chips: Sequence[Chip], curves: Sequence[Curve], singly: Sequence[Curve]) -> list[str]:
    from windtunnel.workloads.science.curve import ratios
    from windtunnel.workloads.science.engine import assumed_facts

    width = output.width()
    lines = [
        "Docking of a mean ligand (29 heavy atoms, 11 torsions), 384 copies, 40 moves, 100 gradient steps: ligands/s"
    ]
    rows = []
    for chip, curve, alone in zip(chips, curves, singly, strict=True):
        for how, points in (("each copy launched for itself", alone.points), ("", curve.points)):
            for point in points:
                label = how or f"{point.size:,.0f} ligands in one launch"
                rate = point.rate
                interval = f"{rate.low:,.1f} – {rate.high:,.1f}"
                rows.append((chip.name, label, f"{rate.value:,.1f}", interval, point.limit, str(rate.source)))
    columns = (
        TextColumn("Chip"),
        TextColumn("how", shorten=Shorten.WRAP, least=18),
        TextColumn("ligands/s", right=True),
        TextColumn("80 % interval", right=True),
        TextColumn("bound by", rank=1),
        TextColumn("rests on", rank=2),
    )
    lines += ["", *render(columns, rows, width), ""]
    for other, curve, alone in zip(chips[1:], curves[1:], singly[1:], strict=True):
        for what, over, under in (
            ("launched singly", singly[0], alone),
            ("launched together", curves[0], curve),
        ):
            values = [point.rate for point in ratios(over, under)]
            low, high = min(v.low for v in values), max(v.high for v in values)
            middle = f"{min(v.value for v in values):.2f} – {max(v.value for v in values):.2f}"
            lines += output.wrapped(
                f"{chips[0].name} over {other.name}, {what}: {middle} × (80 %: {low:.2f} – {high:.2f})", width
            )
    for chip in chips:
        for name, why in assumed_facts(chip).items():
            lines += output.wrapped(f"assumed of {chip.name}: {name}: {why}", width, "  ")
    return [
        *lines,
        *output.wrapped("the host's own work, such as Metropolis' rule and files, is left out", width),
    ]


def _as_json(curves: Sequence[Curve], singly: Sequence[Curve]) -> dict[str, object]:
    return {
        "curves": [
            {
                "chip": curve.chip,
                "execution": curve.execution,
                "size_name": curve.size_name,
                "rate_name": curve.rate_name,
                "points": [
                    {"size": point.size, "rate": point.rate.to_dict(), "limit": point.limit}
                    for point in curve.points
                ],
            }
            for pair in zip(singly, curves, strict=True)
            for curve in pair
        ]
    }
