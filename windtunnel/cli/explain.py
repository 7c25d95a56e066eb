"""`windtunnel explain`: where one prediction comes from: a recording's operations, a kernel, a collective, a row."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import explain_answer, output
from windtunnel.cli.parser import add_chip_options
from windtunnel.errors import WindtunnelError
from windtunnel.specs.table import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from windtunnel.specs.cluster import Cluster
    from windtunnel.validation.explain.points import Point

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CHIP = "mtt-s5000"
EXAMPLES = """examples:
  windtunnel explain gemm --m 4096 --n 4096 --k 8192 --dtype bf16 --on h100-sxm
  windtunnel explain attention --batch 4 --heads 32 --kv-heads 8 --q-len 4096 --head-dim 128 --on mtt-s5000
  windtunnel explain all_reduce --bytes 64MiB --on mtt-s5000:8
  windtunnel explain train.wt --on h100-sxm --top 3
  windtunnel explain train.wt --op mm
  windtunnel explain --data measurements/validation --row train_torchtitan.csv:0"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel explain`."""
    from windtunnel.validation.explain.asked import DIMENSIONS, KINDS

    parser = subparsers.add_parser(
        "explain",
        help="where one prediction comes from",
        usage="windtunnel explain [options] (FILE.wt | KERNEL | COLLECTIVE | --data DIR --row FILE:ROW)",
        description="Take a prediction apart: formula, inputs and what each moves, the fit and its range, and the "
        "nearest measured point. Kernels: " + ", ".join(KINDS) + ".",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("what", nargs="?", default="", metavar="WHAT", help="a recording, a kernel or a collective")
    add("--on", default="", metavar="CHIP[:CARDS]", help=f"chip or cluster (default: {DEFAULT_CHIP})")
    add("--top", type=int, default=5, metavar="N", help="operations of a step to take apart (default: 5)")
    add("--op", default="", metavar="NAME", help="of a recording, only operations whose name holds this")
    add("--dtype", default="bf16", metavar="NAME", help="precision of a kernel (default: bf16)")
    add("--library", default="", metavar="NAME", help="whose kernel, as deepgemm or fa3@vllm")
    add("--bytes", default="", metavar="SIZE", help="message of a collective, as 64MiB (nccl-tests' size)")
    add("--data", type=Path, metavar="DIR", help="tables whose rows are the nearest measurements")
    add("--row", default="", metavar="FILE:ROW", help="a row of a table in --data, by number or row_id")
    for name in DIMENSIONS:
        add(f"--{name.replace('_', '-')}", type=float, metavar="N", help=argparse.SUPPRESS)
    add_chip_options(parser)


def run(args: argparse.Namespace) -> int:
    """Explain and print.

    Raises:
        WindtunnelError: E960, nothing that can be explained; E961 to E963, dimensions, dtype or row; E1xx the
            target, E9xx a file; and what pricing raises.
    """
    from windtunnel.validation.explain import points as measured

    if args.top < 1:
        raise WindtunnelError("E961", f"--top {args.top} shows nothing", hint="--top 5")
    if args.data is not None:
        from windtunnel.validation.folder import files_of

        files_of(args.data)  # says what is wrong with the folder
        with output.Progress("reading", quiet=args.quiet) as progress:
            progress.update(str(args.data))
            known = tuple(measured.points_of_folder(args.data))
        where = f"the tables in {args.data}"
    else:
        known, where = measured.shipped_points(), measured.SHIPPED_SOURCE
    _explain(args, known, where)
    return 0


def _explain(args: argparse.Namespace, points: Sequence[Point], where: str) -> None:
    from windtunnel.network.collective import Collective
    from windtunnel.validation.explain.asked import DIMENSIONS, KINDS, batch_asked
    from windtunnel.validation.explain.kernel import explain_kernel
    from windtunnel.validation.explain.row import explain_row

    name = args.what.replace("-", "_")
    if args.row:
        if args.data is None:
            raise WindtunnelError(
                "E963", "--row needs --data", hint="windtunnel explain --data DIR --row FILE:ROW"
            )
        explain_answer.show_row(args, explain_row(args.data, args.row, points, top=args.top), where)
    elif name in KINDS:
        given = {dim: value for dim in DIMENSIONS if (value := getattr(args, dim)) is not None}
        batch = batch_asked(name, given, args.dtype)
        why = explain_kernel(batch, _cluster(args).chip, points, library=args.library)
        explain_answer.show_kernel(args, why, where)
    elif name in Collective.__members__.values():
        _collective(args, Collective(name), points, where)
    elif args.what.endswith(".wt") or Path(args.what or "-").is_file():
        _recording(args, points, where)
    else:
        known = (*KINDS, *(str(kind) for kind in Collective))
        raise WindtunnelError(
            "E960",
            f"`{args.what}` is no recording, kernel or collective" if args.what else "nothing to explain",
            hint=f"{did_you_mean(name, known)}windtunnel explain gemm --m 4096 --n 4096 --k 8192 --on h100-sxm",
            values={"kernels": ", ".join(KINDS), "collectives": ", ".join(str(kind) for kind in Collective)},
        )


def _cluster(args: argparse.Namespace) -> Cluster:
    from windtunnel.specs.targets import parse_target

    return parse_target(args.on or DEFAULT_CHIP, args.set, args.chips)[0]


def _collective(args: argparse.Namespace, kind: str, points: Sequence[Point], where: str) -> None:
    from windtunnel import units
    from windtunnel.network.collective import Collective
    from windtunnel.validation.explain.collective import explain_collective

    cluster = _cluster(args)
    hint = f"windtunnel explain {kind} --bytes 64MiB --on {cluster.chip.name}:8"
    try:
        nbytes = units.parse_bytes(args.bytes)
    except ValueError:
        nbytes = -1
    if nbytes < 1 or cluster.cards < 2:
        what = "needs two cards or more" if nbytes >= 1 else "needs the size of its message, --bytes"
        raise WindtunnelError("E961", f"{kind} {what}", hint=hint)
    why = explain_collective(Collective(kind), float(nbytes), cluster, points, args.library)
    explain_answer.show_collective(args, why, where)


def _recording(args: argparse.Namespace, points: Sequence[Point], where: str) -> None:
    from windtunnel.network.links import Links
    from windtunnel.network.model import NetworkModel
    from windtunnel.program import file
    from windtunnel.validation.explain.operations import explain_program

    program = file.load(args.what)
    args.on = args.on or program.origin.chip
    cluster = _cluster(args)
    links = Links.of_chip(cluster.chip, max(cluster.cards, program.origin.world_size))
    why = explain_program(program, cluster.chip, NetworkModel(links), points, top=args.top, name=args.op)
    if args.op and not why.operations:
        names = sorted({spec.base_name for spec in program.specs})
        raise WindtunnelError(
            "E960",
            f"no operation of the step that takes time on the card is called `{args.op}`",
            hint=f"{did_you_mean(args.op, names)}windtunnel explain {args.what} --top 20 lists the longest",
        )
    explain_answer.show_step(args, why, where)
