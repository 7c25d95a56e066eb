"""`windtunnel run --on CHIP:CARDS`: one world recorded, its ranks replayed together and priced on clusters."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from windtunnel.cli import output, run_answer
from windtunnel.errors import WindtunnelError
from windtunnel.network.model import NetworkModel
from windtunnel.program import world_files
from windtunnel.program.program import Outcome, Program
from windtunnel.results.run_result import RunResult
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.targets import for_world
from windtunnel.timeline.cluster_totals import predict_world
from windtunnel.timeline.predict import predict

if TYPE_CHECKING:
    from windtunnel.capture.distributed.world import RankRecording
    from windtunnel.capture.launch import Ending, Target
    from windtunnel.capture.session import Session


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `windtunnel run` that only clusters have."""
    parser.add_argument(
        "--ranks",
        default="0",
        metavar="R,...",
        help="ranks to record besides those found, or `all` (default: 0)",
    )
    parser.add_argument(
        "--scale",
        default="",
        metavar="N,...",
        help="the same script on clusters of several sizes: 8,16,...,1024",
    )
    parser.add_argument(
        "--expert-load",
        default="",
        metavar="HOW",
        help="experts over ranks get unequal shares: uniform (by chance) or power:A; default: equal shares",
    )


def is_asked(args: argparse.Namespace, clusters: Sequence[Cluster]) -> bool:
    """Whether the script is to run on more than one card."""
    return bool(args.scale) or any(cluster.cards > 1 for cluster in clusters)


def record_and_answer(
    args: argparse.Namespace,
    target: Target,
    make_session: Callable[[], Session],
    clusters: Sequence[Cluster],
    saved: str,
) -> int:
    """Record ``target`` as a world of as many ranks as the clusters have cards, price, print.

    Raises:
        WindtunnelError: E235, clusters of different sizes.
    """
    if args.scale:
        from windtunnel.cli import run_scale

        return run_scale.record_and_answer(args, target, make_session, clusters, saved)
    sizes = {cluster.cards for cluster in clusters}
    if len(sizes) > 1:
        raise WindtunnelError(
            "E235",
            f"one recording has one world size, and --on asks for {', '.join(map(str, sorted(sizes)))} cards",
            hint="compare clusters of one size, or ask for several sizes of one chip with --scale 8,64",
        )
    recordings = record(args, target, make_session, clusters[0])
    programs = [r.program for r in recordings if r.program is not None]
    world_files.save(programs, saved)
    ending = _said(recordings)
    return answer(args, programs, clusters, saved=saved, ending=ending)


def record(
    args: argparse.Namespace, target: Target, make_session: Callable[[], Session], cluster: Cluster
) -> list[RankRecording]:
    """The ranks of one world, recorded."""
    from windtunnel.capture.distributed.world import World, record_world
    from windtunnel.cli.script_output import script_output

    network = NetworkModel(cluster)

    def timed() -> Session:
        session = make_session()
        session.clock.collective_time = network.estimate  # for scripts that ask what time it is
        return session

    world = World(cluster.cards, cluster.node.cards, ranks_asked(args, cluster.cards))
    with script_output(to_stderr=args.json):
        return record_world(timed, target, world, virtual_clock=args.virtual_clock)


def ranks_asked(args: argparse.Namespace, world_size: int) -> tuple[int, ...]:
    """The ranks to record in any case: those of ``--ranks``, all in values mode, else the first.

    Raises:
        WindtunnelError: E236, no such ranks; E237, too many ranks for values mode; E245, for any.
    """
    if args.values:
        if world_size > VALUES_RANKS:
            raise WindtunnelError(
                "E237",
                f"--values runs every rank for real, and {world_size} are too many",
                hint=f"ask for {VALUES_RANKS} cards or fewer, or leave out --values",
            )
        return tuple(range(world_size))
    from windtunnel.capture.distributed.mailbox import MOST_RANKS, too_many

    text: str = getattr(args, "ranks", "") or "0"
    words = [word.strip() for word in text.split(",")]
    ranks: tuple[int, ...] = ()
    if text == "all":
        ranks = tuple(range(world_size))
    elif all(word.isdigit() and int(word) < world_size for word in words):
        ranks = tuple(sorted({int(word) for word in words}))
    if len(ranks) > MOST_RANKS:
        raise too_many(f"--ranks {text} of {world_size} cards names {len(ranks):,}")
    if ranks:
        return ranks
    raise WindtunnelError(
        "E236",
        f"--ranks {text} names no ranks of a world of {world_size}",
        hint=f"ranks count from 0 to {world_size - 1}: --ranks 0,{world_size - 1}, or --ranks all",
    )


VALUES_RANKS = 8


def answer(
    args: argparse.Namespace,
    programs: Sequence[Program],
    clusters: Sequence[Cluster],
    *,
    saved: str,
    ending: Ending | None = None,
) -> int:
    """Price a recorded world on every cluster and print; the exit status. Raises what pricing raises."""
    world = programs[0].origin.world_size
    sized = [for_world(cluster, world) for cluster in clusters]

    def of_world(_: Program, cluster: Cluster) -> RunResult:
        return predicted(args, programs, cluster)

    return run_answer.answer(args, programs[0], sized, saved=saved, ending=ending, predictor=of_world)


def predicted(args: argparse.Namespace, programs: Sequence[Program], cluster: Cluster) -> RunResult:
    """A recorded world on one cluster; of one whose memory ran full, the rank that did, as far as it came."""
    full = next((p for p in programs if p.origin.outcome is Outcome.OUT_OF_MEMORY), None)
    if full is not None:  # the others wait for it for ever
        return predict(
            full,
            cluster.chip,
            cards=full.origin.world_size,
            collective_time=NetworkModel(cluster).estimate,
            strict=args.strict,
            command=shlex.join(["windtunnel", *sys.argv[1:]]),
        )
    return predict_world(
        programs,
        cluster.chip,
        NetworkModel(cluster),
        strict=args.strict,
        command=shlex.join(["windtunnel", *sys.argv[1:]]),
        experts=args.expert_load,
    )


def _said(recordings: Sequence[RankRecording]) -> Ending:
    """How the world ended: as its first rank, or as the rank that failed and whose words are then shown."""
    from windtunnel.capture.distributed.world import cause

    failed = cause(recordings)
    if failed is None:
        return recordings[0].ending
    if failed.rank == recordings[0].rank:
        return failed.ending
    output.say(f"rank {failed.rank} failed:")
    shown = failed.ending.shown or failed.log
    return replace(failed.ending, shown=shown)
