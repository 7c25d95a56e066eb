"""`windtunnel run --scale 8,16,...,1024`: the same script recorded at every size, priced, and compared.

Every size is recorded in a process of its own: PyTorch has one default process group per process, and scripts
build different programs for different world sizes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import long_run, output, run_cluster
from windtunnel.errors import WindtunnelError
from windtunnel.program import world_files
from windtunnel.report import long_run_table, scaling_table
from windtunnel.results import file as result_file
from windtunnel.results import json_result
from windtunnel.results.run_result import RunResult
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.targets import CARDS_MAX, cluster_of
from windtunnel.timeline.scaling import scaling_points

if TYPE_CHECKING:
    from windtunnel.capture.launch import Target
    from windtunnel.capture.session import Session


def record_and_answer(
    args: argparse.Namespace,
    target: Target,
    make_session: Callable[[], Session],
    clusters: Sequence[Cluster],
    saved: str,
) -> int:
    """Record and price every size on the first cluster's chip; print the table; the exit status.

    Raises:
        WindtunnelError: E240, sizes that cannot be read; E241, the script failed at one of them.
    """
    sized = [_resized(clusters[0], cards) for cards in sizes(args.scale)]
    results = [_one(args, target, make_session, cluster, saved) for cluster in sized]
    points = scaling_points(results)
    largest = replace(max(results, key=lambda result: result.cards), scaling=points)
    largest = long_run.added(args, largest, clusters[0].chip)
    kept = Path(saved).with_suffix(".scale.wtr")
    result_file.save([largest], kept)
    if args.json:
        output.print_json(json_result.answer([largest], saved))
    else:
        output.print_lines(scaling_table.lines(largest, output.width()))
        if largest.long_run is not None:
            output.print_lines(["", *long_run_table.lines(largest, output.width())])
        output.say(f"saved {kept} · next: windtunnel report {shlex.quote(str(kept))}", quiet=args.quiet)
    return 0


def sizes(text: str) -> list[int]:
    """``8,64`` as it stands; ``8,16,...,128`` goes on doubling (or by the ratio of the two before).

    Raises:
        WindtunnelError: E240.
    """
    found: list[int] = []
    words = [word.strip() for word in text.replace("…", "...").split(",")]
    for number, word in enumerate(words):
        last = int(words[number + 1]) if word == "..." and words[number + 1 : number + 2] != [] else 0
        if word == "..." and found and last > found[-1]:
            ratio = found[-1] // found[-2] if len(found) > 1 else 2
            while ratio > 1 and found[-1] * ratio < last:
                found.append(found[-1] * ratio)
        elif word.isdigit() and 1 <= int(word) <= CARDS_MAX:
            found.append(int(word))
        else:
            raise WindtunnelError(
                "E240",
                f"cannot read the sizes `{text}`",
                hint="name numbers of cards, as --scale 8,64,512 or --scale 8,16,...,1024",
            )
    return sorted(set(found))


def _resized(cluster: Cluster, cards: int) -> Cluster:
    if cluster.cards == 1:
        return cluster_of(cluster.chip, cards)
    return replace(cluster, cards=cards, name=f"{cluster.chip.name}:{cards}")


def _one(
    args: argparse.Namespace,
    target: Target,
    make_session: Callable[[], Session],
    cluster: Cluster,
    saved: str,
) -> RunResult:
    """One size, recorded in a child process."""
    with tempfile.TemporaryDirectory(prefix="windtunnel-") as folder:
        path = str(Path(folder) / "world.wt")
        output.say(f"recording {cluster.cards} cards", quiet=args.quiet)
        _in_child(lambda: _record(args, target, make_session, cluster, path))
        if not Path(path).exists():
            raise WindtunnelError(
                "E241",
                f"the script failed as one of {cluster.cards} ranks",
                hint=f"see why with: windtunnel run --on {cluster.chip.name}:{cluster.cards} {target.name}",
                values={"cards": cluster.cards},
            )
        programs = world_files.load(path)
        world_files.save(programs, saved)
    return run_cluster.predicted(args, programs, cluster)


def _record(
    args: argparse.Namespace,
    target: Target,
    make_session: Callable[[], Session],
    cluster: Cluster,
    path: str,
) -> None:
    from windtunnel.capture.distributed.world import cause

    recordings = run_cluster.record(args, target, make_session, cluster)
    failed = cause(recordings)
    if failed is not None:
        print(failed.ending.shown or failed.ending.detail, file=sys.stderr)
        return
    world_files.save([r.program for r in recordings if r.program is not None], path)


def _in_child(work: Callable[[], None]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.dup2(2, 1)  # what the script prints is talk here
        work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)
