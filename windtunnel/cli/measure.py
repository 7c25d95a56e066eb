"""`windtunnel measure`: time kernels, collectives and whole steps on a real card, into tables that validate reads."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import output
from windtunnel.errors import WindtunnelError

if TYPE_CHECKING:
    from windtunnel.validation.measure.collect import Collected

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

FAMILIES = ("gemm", "attention", "ops", "collectives", "steps")
EXAMPLES = """examples:
  windtunnel measure --out measured                        everything, on the card of this machine
  windtunnel measure --out measured --only gemm --only steps --grid full
  torchrun --nproc-per-node 8 -m windtunnel measure --out measured --only collectives
  windtunnel measure --on mtt-s5000 --out rehearsal        on the virtual card: what it would write
  windtunnel validate --data measured                      predicted against measured"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel measure`."""
    parser = subparsers.add_parser(
        "measure",
        help="measure a real card, for validate and calibrate",
        description="Time kernels, collectives (under torchrun) and whole training steps with plain PyTorch 2.11 or "
        "later on a CUDA or MUSA card, and write tables that validate and calibrate read. An interrupted run goes on "
        "where it was: rows in the folder are kept.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        default=Path("measured"),
        metavar="DIR",
        help="folder of the tables (default: measured)",
    )
    add("--only", action="append", default=[], choices=FAMILIES, help="only this (may repeat)")
    add(
        "--grid",
        choices=("quick", "full"),
        default="full",
        help="quick: small shapes, a rehearsal (default: full)",
    )
    add("--device", choices=("auto", "cuda", "musa", "cpu"), default="auto", help="where (default: auto)")
    add("--on", default="", metavar="CHIP", help="a virtual card instead of a real one")
    add(
        "--gpu",
        default="",
        metavar="NAME",
        help="name of the card (default: the catalogue's, or the driver's)",
    )
    add(
        "--network",
        default="not stated",
        metavar="TEXT",
        help="what joins the nodes, for collectives between them",
    )


def run(args: argparse.Namespace) -> int:
    """Measure and write; exit status 1 where nothing could be measured.

    Raises:
        WindtunnelError: E434, no PyTorch; E964, E965, the folder; E966, no such device; E101, the chip.
    """
    if find_spec("torch") is None:
        raise WindtunnelError(
            "E434", "measuring needs PyTorch, which is not installed", hint="pip install 'windtunnel[torch]'"
        )
    from windtunnel.validation.measure.collect import Wish, collect, device_named
    from windtunnel.validation.measure.collectives import Ranks

    wish = Wish(tuple(args.only) or FAMILIES, args.grid == "full", args.gpu, args.network)
    with ExitStack() as stack:
        if args.on:
            from windtunnel.api import record

            stack.enter_context(record(args.on))
        device = device_named("cuda" if args.on else args.device, Ranks.of_environment().local_rank)
        progress = stack.enter_context(output.Progress("measuring", quiet=args.quiet))
        found = collect(wish, device, args.out, progress.update)
    if Ranks.of_environment().rank:
        return 0  # the first rank writes and speaks
    return _show(args, found)


def _show(args: argparse.Namespace, found: Collected) -> int:
    rows = sum(found.measured.values())
    if args.json:
        data = {
            "folder": str(found.folder),
            "gpu": found.gpu,
            "measured": found.measured,
            "kept": found.kept,
            "skipped": [{"case": case, "reason": reason} for case, reason in found.skipped],
        }
        output.print_json(output.success("measure", data))
    else:
        lines = [f"{found.gpu}: {rows:,} rows measured, {found.kept:,} were there already"]
        lines += [
            f"  {count:6,}  {found.folder / stem}.csv" for stem, count in sorted(found.measured.items())
        ]
        output.print_lines(lines)
        for case, reason in found.skipped:
            output.say(f"  skipped {case}: {reason}", quiet=args.quiet)
        output.say(f"next: windtunnel validate --data {found.folder}", quiet=args.quiet)
    return 0 if rows or found.kept else 1
