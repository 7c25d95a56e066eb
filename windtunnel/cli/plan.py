"""`windtunnel plan`: the fastest layout of a training step on a cluster, among those that fit in memory."""

from __future__ import annotations

import argparse
import shlex
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from windtunnel.cli import output, plan_answer
from windtunnel.cli.fit_model import find_model
from windtunnel.cli.parser import add_chip_options
from windtunnel.cli.run_scale import sizes
from windtunnel.errors import WindtunnelError
from windtunnel.planner.job import TrainingJob
from windtunnel.planner.search import MOST_PRICED, fits_on, plan_training
from windtunnel.planner.space import Space
from windtunnel.recipes.fit.training import Optimizer
from windtunnel.recipes.layout import Precision, Recompute, Sharding
from windtunnel.results.plan_result import PlanResult
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.targets import parse_target
from windtunnel.timeline.schedule import Schedule

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_TARGET = "mtt-s5000:8"
DEFAULT_TOKENS = 4 << 20
MOST_CARDS = 16_384
EXAMPLES = """examples:
  windtunnel plan llama3-70b --on mtt-s5000:1024 --global-batch 1024
  windtunnel plan deepseek-v3 --on mtt-s5000:1024 --tp 1 --ep 64 --precision fp8
  windtunnel plan qwen3.5-397b --on mtt-s5000 --scale 128,256,...,1024 --weak --global-batch 256
  windtunnel plan llama3-8b --on h100-sxm:8 --tp 1 --pp 1 --fsdp --json"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel plan`."""
    parser = subparsers.add_parser(
        "plan",
        help="the fastest training layout that fits",
        usage="windtunnel plan MODEL --on CHIP:CARDS [options]",
        description="Search for the fastest layout of a training step that surely fits in memory. Degrees that "
        "are given stay; those left out are searched. With all of them given it prices that one layout. "
        "Exit status 1: nothing fits.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a shipped model, a config.json, a transformers class")
    add("--on", default=DEFAULT_TARGET, metavar="CHIP:CARDS", help=f"default: {DEFAULT_TARGET}")
    add("--global-batch", type=int, metavar="N", help="sequences of a step, all cards; default: 4 Mi tokens")
    add("--sequence", type=int, default=4096, metavar="TOKENS", help="of one sample; default: 4096")
    add("--precision", choices=[str(p) for p in Precision], default="bf16", help="of products; default: bf16")
    add("--optimizer", choices=[str(kind) for kind in Optimizer], default="adamw", help="default: adamw")
    _add_degrees(parser)
    add(
        "--scale",
        default="",
        metavar="N,...",
        help="the best layout on clusters of several sizes: 64,...,1024",
    )
    add("--weak", action="store_true", help="with --scale: the global batch grows with the cards")
    add("--top", type=int, default=8, metavar="N", help="layouts to show; default: 8")
    add(
        "--effort",
        type=int,
        default=MOST_PRICED,
        metavar="N",
        help=f"layouts to simulate at most; {MOST_PRICED}",
    )
    add_chip_options(parser)


def _add_degrees(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tp", type=int, metavar="N", help="tensor parallel, with sequence parallel")
    add("--pp", type=int, metavar="N", help="pipeline stages")
    add("--vpp", type=int, metavar="N", help="model chunks of a stage (interleaved schedule)")
    add("--cp", type=int, metavar="N", help="context parallel")
    add("--ep", type=int, metavar="N", help="expert parallel")
    add("--micro-batch", type=int, metavar="N", help="sequences of one forward")
    add("--recompute", choices=[str(way) for way in Recompute], help="what backward computes again")
    add("--schedule", choices=[str(s) for s in Schedule], help="of the pipeline; default: 1f1b, interleaved")
    sharding = parser.add_mutually_exclusive_group()
    for flag, chosen in (("--fsdp", Sharding.FSDP), ("--zero1", Sharding.ZERO1), ("--ddp", Sharding.DDP)):
        sharding.add_argument(
            flag, dest="sharding", action="store_const", const=chosen, help=f"data-parallel ranks: {chosen}"
        )
    add("--overlap-tp", action="store_true", help="tensor-parallel collectives run beside products")
    add("--overlap-ep", action="store_true", help="expert exchange runs beside another micro-batch")
    add(
        "--imbalance",
        type=float,
        default=1.0,
        metavar="X",
        help="busiest expert rank over the mean; default: 1",
    )


def run(args: argparse.Namespace) -> int:
    """Print the best layouts; 0 something fits on every size, 1 it does not.

    Raises:
        WindtunnelError: E101 to E109 and E220, the target; E240, the sizes; E250 and E251, the layout; E302 to
            E307, the model; E209, a mixer that recipes cannot build; E501, a precision the chip lacks.
    """
    _check(args)
    clusters = _clusters(args)
    model = find_model(args.model)
    jobs = [
        TrainingJob(
            model=model,
            cluster=cluster,
            global_batch=_global_batch(args, cluster.cards, clusters[0].cards),
            sequence=args.sequence,
            precision=Precision(args.precision),
            optimizer=Optimizer(args.optimizer),
        )
        for cluster in clusters
    ]
    space = _space(args)
    results = [_one(args, job, space) for job in jobs]
    if args.json:
        output.print_json(plan_answer.as_json(results, args.top))
    elif args.scale:
        output.print_lines(plan_answer.scaling_lines(results, args.weak, output.width()))
    else:
        for job, result in zip(jobs, results, strict=True):
            output.print_lines(plan_answer.lines(result, args.top, output.width()))
            larger = "" if result.rows else _larger(args, job, space)
            output.print_lines(plan_answer.hints(result, larger, output.width()))
    return 0 if all(result.rows for result in results) else 1


def _one(args: argparse.Namespace, job: TrainingJob, space: Space) -> PlanResult:
    with output.Progress(f"{job.cluster.cards:,} cards", quiet=args.quiet or args.json) as progress:
        return plan_training(job, space, most_priced=args.effort, progress=progress.update)


def _larger(args: argparse.Namespace, job: TrainingJob, space: Space) -> str:
    """The same command on the fewest cards (doubling) on which something fits; nothing if none do."""
    cards = 2 * job.cluster.cards
    while cards <= MOST_CARDS:
        with suppress(WindtunnelError):  # a batch that does not divide over so many cards
            if fits_on(replace(job, cluster=replace(job.cluster, cards=cards)), space):
                return _command(args, job, cards)
        cards *= 2
    return ""


def _command(args: argparse.Namespace, job: TrainingJob, cards: int) -> str:
    """The command line of ``args`` on another number of cards."""
    words = ["windtunnel", "plan", args.model, "--on", f"{args.on.partition(':')[0]}:{cards}"]
    words += ["--global-batch", str(job.global_batch), "--sequence", str(job.sequence)]
    for name in ("tp", "pp", "vpp", "cp", "ep", "micro_batch", "recompute", "schedule"):
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    words += ["--precision", args.precision] if args.precision != "bf16" else []
    words += ["--optimizer", args.optimizer] if args.optimizer != "adamw" else []
    words += [f"--{args.sharding}"] if args.sharding is not None else []
    words += [piece for text in args.set for piece in ("--set", text)]
    words += [piece for folder in args.chips for piece in ("--chips", str(folder))]
    return shlex.join(words)


def _clusters(args: argparse.Namespace) -> list[Cluster]:
    clusters = list(parse_target(args.on, args.set, args.chips))
    if not args.scale:
        return clusters
    if len(clusters) > 1:
        raise _bad("--scale", args.scale, "asked for one chip only: leave one in --on")
    from windtunnel.specs.targets import cluster_of

    base = clusters[0]
    found = sizes(args.scale)
    if base.cards == 1:
        return [cluster_of(base.chip, cards) for cards in found]
    return [replace(base, cards=cards, title=f"{cards:,} × {base.chip.title}") for cards in found]


def _global_batch(args: argparse.Namespace, cards: int, smallest: int) -> int:
    batch: int = args.global_batch or max(1, DEFAULT_TOKENS // args.sequence)
    return batch * cards // smallest if args.scale and args.weak else batch


def _space(args: argparse.Namespace) -> Space:
    return Space(
        tensor=args.tp,
        pipeline=args.pp,
        chunks=args.vpp,
        context=args.cp,
        expert=args.ep,
        micro_batch=args.micro_batch,
        recompute=Recompute(args.recompute) if args.recompute else None,
        sharding=args.sharding,
        schedule=args.schedule,
        overlap_experts=args.overlap_ep,
        overlap_tensor=args.overlap_tp,
        imbalance=args.imbalance,
    )


def _check(args: argparse.Namespace) -> None:
    names = ("global_batch", "sequence", "tp", "pp", "vpp", "cp", "ep", "micro_batch", "top", "effort")
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise _bad(f"--{name.replace('_', '-')}", value, "a whole number above 0")
    if not args.imbalance >= 1.0 or args.imbalance == float("inf"):
        raise _bad("--imbalance", args.imbalance, "1 or more: the busiest rank's load over the mean")
    if args.weak and not args.scale:
        raise _bad("--weak", "given", "used with --scale 64,...,1024")


def _bad(option: str, value: object, wanted: str) -> WindtunnelError:
    return WindtunnelError(
        "E251",
        f"{option} must be {wanted}" + ("" if value == "given" else f", not {value}"),
        hint="see windtunnel plan --help",
        values={option: value},
    )
