"""``windtunnel calibrate``: fit the cost models on a folder of measured tables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit the cost models on measured tables",
        description="Fit the parameters of every kernel family on a folder of measured tables and rewrite the "
        "parameter files of the package. The same tables give the same bytes.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of calibration tables"
    )
    parser.add_argument(
        "--family", action="append", default=[], metavar="NAME", help="only this family (may be repeated)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, write and print one line a fit."""
    from windtunnel.validation.calibrate.command import calibrate_kernels

    print(f"{'family':18} {'chip':10} {'library':24} {'path':18} {'rows':>7} {'median':>7} {'p90':>7}")
    for fit in calibrate_kernels(args.data, args.family):
        print(
            f"{fit.file:18} {fit.chip or 'all':10} {fit.library or 'any':24} {fit.path or 'any':18} "
            f"{fit.rows:7d} {fit.error_median:7.1%} {fit.error_p90:7.1%}"
        )
    print("errors are weighted by time, on shapes and chips left out of the fit", file=sys.stderr)
    return 0
