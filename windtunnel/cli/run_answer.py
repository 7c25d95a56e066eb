"""What `windtunnel run` prints: the prediction, then whatever went wrong, then what can be done next."""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from windtunnel.cli import long_run, output
from windtunnel.cost.model import CostModel, Settings
from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.network.links import Links
from windtunnel.network.model import NetworkModel
from windtunnel.program.program import Outcome, Program
from windtunnel.report import terminal
from windtunnel.results import json_result
from windtunnel.results.run_result import RunResult
from windtunnel.specs.cluster import Cluster
from windtunnel.timeline.predict import predict

if TYPE_CHECKING:
    from windtunnel.capture.launch import Ending

OTHER_CHIPS = ("mtt-s5000", "h100-sxm")


def answer(
    args: argparse.Namespace,
    program: Program,
    clusters: Sequence[Cluster],
    *,
    saved: str,
    ending: Ending | None = None,
    predictor: Callable[[Program, Cluster], RunResult] | None = None,
) -> int:
    """Price ``program`` on every cluster and print; the exit status.

    Args:
        ending: how the script ended; None for a recording from a file.
        predictor: what prices the recording on one cluster, where it is not of a single card.

    Raises:
        WindtunnelError: E110, E5xx, an operation that a chip cannot run or that has no price.
    """
    if ending is not None and ending.shown:
        print(ending.shown, end="", file=sys.stderr)
    failure = ending.error if ending is not None else None
    predict = predictor or functools.partial(_predict, args)
    results = _predictions(args, predict, program, clusters, failure)
    failure = failure or _verdict(program, results)
    if args.json:
        output.print_json(_json(results, saved, failure))
    elif results:
        sys.stdout.write(terminal.summary(results, output.width(), output.styled(), not args.verbose))
        sys.stdout.flush()
    if failure is not None:
        print(failure.render(), file=sys.stderr)
    if saved and not args.json:
        output.say(_next_commands(saved, results), quiet=args.quiet)
    if ending is not None and ending.exit_status:
        return ending.exit_status
    return failure.exit_status if failure is not None else 0


def _predictions(
    args: argparse.Namespace,
    predict: Callable[[Program, Cluster], RunResult],
    program: Program,
    clusters: Sequence[Cluster],
    failure: WindtunnelError | None,
) -> list[RunResult]:
    if not program.num_ops:
        return []
    try:
        return [long_run.added(args, predict(program, cluster), cluster.chip) for cluster in clusters]
    except WindtunnelError as error:
        if failure is None:
            raise
        output.say(f"what was recorded until then has no price: {error.what} [{error.code}]")
        return []


def _predict(args: argparse.Namespace, program: Program, cluster: Cluster) -> RunResult:
    settings = Settings(allow_tf32=program.origin.allow_tf32)
    network = NetworkModel(Links.of_chip(cluster.chip, cluster.cards))
    return predict(
        program,
        cluster.chip,
        cards=cluster.cards,
        collective_time=network.estimate,
        model_for=lambda chip: CostModel(chip, settings),
        strict=args.strict,
        command=shlex.join(["windtunnel", *sys.argv[1:]]),
    )


def _verdict(program: Program, results: Sequence[RunResult]) -> WindtunnelError | None:
    """What is wrong with a script that ended by itself."""
    if not results and program.origin.outcome is Outcome.COMPLETE:
        return WindtunnelError(
            "E441",
            "the script ended without a single operation on the card",
            hint='move the model and its inputs there: `.to("cuda")`, or the script\'s own option for it',
        )
    full = [result for result in results if not result.memory.fits]
    if not full:
        return None
    where = full[0].memory.out_of_memory_at or full[0].memory.peak_at
    return AnswerIsNo(
        "E443",
        f"does not fit on {', '.join(result.chip_title for result in full)}",
        hint="a smaller batch, activation checkpointing or more cards; --oom continue records past the limit",
        values={"at": where} if where else None,
    )


def _json(results: Sequence[RunResult], saved: str, failure: WindtunnelError | None) -> dict[str, object]:
    if failure is None:
        return json_result.answer(results, saved)
    recorded = json_result.answer(results, saved) if results else {}
    return {**recorded, **json_result.failure(failure)}


def _next_commands(saved: str, results: Sequence[RunResult]) -> str:
    shown = shlex.quote(saved)
    other = next((chip for chip in OTHER_CHIPS if chip not in {result.chip for result in results}), None)
    again = f" · windtunnel run --on {other} {shown}" if other else ""
    return f"saved {shown} · next: windtunnel report {shown}{again}"
