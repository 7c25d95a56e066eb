"""`windtunnel port PATH ...`: what ties a codebase to one vendor, and the edit that frees it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import output, port_answer
from windtunnel.porting.recorded import reached
from windtunnel.porting.scan import patch, scan
from windtunnel.program.file import load

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLES = """examples:
  windtunnel port .
  windtunnel port train.py model/ -v
  windtunnel port . --diff | git apply
  windtunnel port . --recording train.wt

Exit status 0: all of it runs on MUSA as it is or after the edits of --diff; 1: some places need more."""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel port`."""
    parser = subparsers.add_parser(
        "port",
        help="what ties a codebase to one vendor",
        description="Read a codebase and list what ties it to NVIDIA: what Moore Threads' stack redirects, what needs "
        "an edit, which kernels and packages need a counterpart, and what has none. Nothing is run or imported.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="files and folders of the codebase"
    )
    parser.add_argument(
        "--diff", action="store_true", help="print the mechanical edits as one patch, and nothing else"
    )
    parser.add_argument(
        "--recording",
        type=Path,
        metavar="FILE.wt",
        help="a recording made by `windtunnel run`: which of the places it came past",
    )


def run(args: argparse.Namespace) -> int:
    """Print places or the patch; 1 where something needs more than the edits. Raises E981, E982, E91x."""
    if args.diff:
        output.print_lines(line.rstrip("\n") for line in patch(args.paths))
        return 0
    with output.Progress("reading", quiet=args.quiet or args.json) as progress:
        found = scan(args.paths, lambda done: progress.update(f"{done} files"))
    seen = reached(load(args.recording).notices, found) if args.recording else None
    if args.json:
        output.print_json(port_answer.as_json(found, seen))
    else:
        output.print_lines(port_answer.lines(found, seen, output.width(), every=args.verbose))
    return 0 if found.free else 1
