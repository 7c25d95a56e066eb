"""``windtunnel calibrate``: fit the cost models on a folder of measured tables."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windtunnel.cli import output
from windtunnel.errors import WindtunnelError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Any]

EXAMPLES = """examples:
  windtunnel calibrate --data measurements/calibration
  windtunnel calibrate --data measurements/calibration --family attention --family gemm
  windtunnel calibrate --data measurements/calibration --leave-one-out mtt-s5000
  windtunnel calibrate --data measurements/calibration --hide h100-sxm --family attention"""

HEAD = f"{'family':18} {'chip':10} {'library':26} {'path':20} {'rows':>7} {'median':>7} {'p90':>7} {'roofline':>8}"


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel calibrate`."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit the cost models on measured tables",
        description="Fit the parameters of every kernel family on a folder of measured tables and rewrite the "
        "parameter files of the package. The same tables give the same bytes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of calibration tables"
    )
    parser.add_argument(
        "--family", action="append", default=[], metavar="NAME", help="only this family (may be repeated)"
    )
    parser.add_argument(
        "--leave-one-out",
        metavar="CHIP",
        help="fit and write nothing; predict every point of this chip as if it had not been measured",
    )

    parser.add_argument(
        "--hide",
        metavar="CHIP",
        help="write nothing; fit without any row of this chip and predict all of them",
    )


def run(args: argparse.Namespace) -> int:
    """Fit, write and print one line a fit. Raises WindtunnelError E951 to E954 and E956."""
    if args.leave_one_out:
        return _leave_one_out(args)
    if args.hide:
        return _hide(args)
    from windtunnel.validation.calibrate.command import calibrate_kernels

    fits = []
    if not args.json:
        output.print_lines([HEAD])
    for fit in calibrate_kernels(args.data, args.family):
        fits.append(asdict(fit))
        if not args.json:
            roofline = "" if fit.roofline_median is None else f"{fit.roofline_median:8.1%}"
            output.print_lines(
                [
                    f"{fit.file:18} {fit.chip or 'all':10} {fit.library or 'any':26} {fit.path or 'any':20} "
                    f"{fit.rows:7d} {fit.error_median:7.1%} {fit.error_p90:7.1%} {roofline}"
                ]
            )
    if not fits:
        raise WindtunnelError(
            "E956",
            f"no row of {args.data} is of a kernel and a card that can be fitted",
            hint=f"windtunnel validate --data {args.data} says why rows are left out",
            values={"families": ", ".join(args.family or ["all"])},
        )
    if args.json:
        output.print_json(output.success("calibrate", {"fits": fits}))
    output.say("errors are weighted by time, on shapes and chips left out of each fit", quiet=args.quiet)
    return 0


def _leave_one_out(args: argparse.Namespace) -> int:
    """One line a point, then the median by family. Raises WindtunnelError E110 and E953."""
    from windtunnel.units import seconds
    from windtunnel.validation.calibrate.leave_one_out import leave_one_out, medians

    found = []
    for point in leave_one_out(args.data, args.leave_one_out, args.family):
        found.append(point)
        if not args.json:
            kernel = " ".join(part for part in (point.family, point.library, point.path) if part)
            output.print_lines(
                [
                    f"{kernel:34.34} {seconds(point.predicted_s):>9} for {seconds(point.measured_s):>9} "
                    f"{point.error:+7.1%}  {point.how:14} {point.shape}"
                ]
            )
    groups = medians(found)
    if args.json:
        points = [{**asdict(point), "error": point.error} for point in found]
        summary = {name: {"points": count, "median": error} for name, (count, error) in groups.items()}
        output.print_json(output.success("calibrate", {"points": points, "median_error": summary}))
    else:
        lines = [
            f"{name:20} {count:5d} points, median {error:6.1%}" for name, (count, error) in groups.items()
        ]
        output.print_lines(["", *lines])
    output.say("predicted for measured, every point left out of its own prediction", quiet=args.quiet)
    return 0


def _hide(args: argparse.Namespace) -> int:
    """One line a table, library and kernel path. Raises WindtunnelError E110 and E953."""
    from windtunnel.validation.calibrate.hidden_chip import hide_chip

    found = hide_chip(args.data, args.hide, args.family)
    if args.json:
        output.print_json(output.success("calibrate", {"groups": [asdict(group) for group in found]}))
        return 0
    names = ("rows", "median", "p90", "by time", "bias", "held", "roofline")
    lines = [f"{'table':32} {'library':26} {'path':34} " + " ".join(f"{name:>8}" for name in names)]
    for group in found:
        mine = group.score
        lines.append(
            f"{group.table:32} {group.library:26} {group.path:34} {mine.rows:8d} {mine.median:8.1%} {mine.p90:8.1%} "
            f"{mine.time_median:8.1%} {mine.bias:+8.1%} {mine.coverage:8.0%} {group.roofline.time_median:8.1%}"
        )
    output.print_lines(lines)
    output.say(
        "held: share of rows inside their 80 % interval; by time, roofline: medians weighted by measured time",
        quiet=args.quiet,
    )
    return 0
