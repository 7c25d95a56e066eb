"""`--days`: what failures, checkpoints and stragglers leave of weeks of training."""

from __future__ import annotations

import argparse
from dataclasses import replace

from windtunnel.results.run_result import RunResult
from windtunnel.specs.schema import Chip
from windtunnel.timeline.long_run import LongRunQuestion, long_run


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--days`` and what it rests on."""
    add = parser.add_argument_group(
        "long runs", "effective training time over days; what is not stated is taken from published runs"
    ).add_argument
    add("--days", type=float, metavar="N", help="how long the job runs")
    add(
        "--mtbf-hours", type=float, metavar="H", help="time between failures of one card (default: Llama 3's)"
    )
    add("--checkpoint-every", type=float, metavar="MIN", help="training between checkpoints (default: best)")
    add("--checkpoint-stop", type=float, metavar="S", help="standstill of one checkpoint, in seconds")
    add("--restart", type=float, metavar="MIN", help="from a failure to the first step again (default: 15)")
    add("--stragglers", type=float, default=0.0, metavar="PCT", help="spread of a rank's step (default: 0)")
    add("--seed", type=int, default=0, metavar="N", help="of the histories drawn (default: 0)")


def added(args: argparse.Namespace, result: RunResult, chip: Chip) -> RunResult:
    """The result with its long run where one was asked for. Raises E213."""
    if args.days is None:
        return result
    question = LongRunQuestion(
        days=args.days,
        card_hours=args.mtbf_hours,
        every_s=None if args.checkpoint_every is None else 60 * args.checkpoint_every,
        stop_s=args.checkpoint_stop,
        restart_s=None if args.restart is None else 60 * args.restart,
        straggler_sigma=args.stragglers / 100,
        seed=args.seed,
    )
    return replace(result, long_run=long_run(result, chip, question))
