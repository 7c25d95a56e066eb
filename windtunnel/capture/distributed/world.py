"""Records a script as several ranks of one world: rank 0 here, whoever it talks to in processes of their own.

Rank 0 stands for all ranks that do the same. Its point-to-point peers (further pipeline stages, ring
neighbours) do something else: they are recorded at the same time, and theirs in turn, until nobody new is
met.
What this is not: which rank stands for which afterwards (``timeline/symmetry.py``).
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.capture.distributed import peers, rendezvous
from windtunnel.capture.distributed.mailbox import Mailbox, write_whole
from windtunnel.capture.distributed.nursery import Nursery
from windtunnel.capture.launch import Ending, Target, launch
from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError
from windtunnel.program import file as program_file
from windtunnel.program.program import Outcome, Program

FOLLOWS_FROM_OTHERS = ("E230", "E231", "E239")
"""Errors of a rank that waits for one that failed: the other one's error is the cause."""
LOG_TAIL = 4000


@dataclass(frozen=True, slots=True)
class World:
    """What ``torchrun`` would be told. ``ranks``: recorded in any case, besides whoever they talk to."""

    size: int
    cards_per_node: int
    ranks: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class RankRecording:
    """One recorded rank: how its script ended, what it did, and the end of what it printed (not rank 0)."""

    rank: int
    ending: Ending
    program: Program | None
    log: str = ""


def record_world(
    make_session: Callable[[], Session], target: Target, world: World, *, virtual_clock: bool = False
) -> list[RankRecording]:
    """Record the first of ``world.ranks`` in this process and the others beside it; in order of rank.

    The output of the first rank goes where this process's goes, that of the others is kept (``log``).
    """
    folder = Path(tempfile.mkdtemp(prefix="windtunnel-"))
    own = world.ranks[0]

    def rank_main(rank: int, start: Callable[[int], None]) -> str:
        ending, program, ended = _record(
            make_session(), target, world, Mailbox(folder, rank, start), virtual_clock
        )
        _keep(folder, rank, ending, program)
        return ended

    write_whole(folder / f"begun-{own}", b"")
    nursery = Nursery.open(folder, rank_main, own)
    try:
        for rank in world.ranks[1:]:
            nursery.start(rank)
        mailbox = Mailbox(folder, own, nursery.start)
        ending, program, ended = _record(make_session(), target, world, mailbox, virtual_clock)
        write_whole(folder / f"ended-{own}", ended.encode())
        if ending.outcome in (Outcome.COMPLETE, Outcome.OUT_OF_MEMORY) or _follows(ending):
            nursery.wait()
        others = _collect(folder, own)
    finally:
        nursery.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return sorted([RankRecording(own, ending, program), *others], key=lambda recording: recording.rank)


def cause(recordings: Sequence[RankRecording]) -> RankRecording | None:
    """The rank whose failure explains the others', or None when all ended well."""
    failed = [r for r in recordings if r.ending.outcome is not Outcome.COMPLETE or r.ending.exit_status]
    return min(failed, key=lambda r: (_distance(r.ending), r.rank), default=None)


def _distance(ending: Ending) -> int:
    """How far from the cause an ending is: itself, the one that saw a circle of ranks, one that waited for either."""
    if not _follows(ending):
        return 0
    return 1 if ending.error is not None and ending.error.code == "E231" else 2


def _follows(ending: Ending) -> bool:
    return ending.error is not None and ending.error.code in FOLLOWS_FROM_OTHERS


def _record(
    session: Session, target: Target, world: World, mailbox: Mailbox, virtual_clock: bool
) -> tuple[Ending, Program, str]:
    install = session.install

    def install_rank() -> Session:
        install()
        session.join_world(world.size, mailbox.rank, world.cards_per_node)
        peers.use(mailbox)
        rendezvous.use(rendezvous.Rendezvous(mailbox, everybody=len(world.ranks) == world.size))
        return session

    vars(session)["install"] = install_rank
    try:
        ending, program = launch(session, target, virtual_clock=virtual_clock)
    finally:
        peers.use(None)
        rendezvous.use(None)
    limit = session.steps.stop_after
    if limit is not None and ending.outcome is Outcome.COMPLETE and session.steps.complete_steps() >= limit:
        return ending, program, "stopped"
    detail = ending.detail or "ended its script"
    return ending, program, detail


def _keep(folder: Path, rank: int, ending: Ending, program: Program) -> None:
    error = ending.error
    told: Any = None
    if error is not None:
        told = (error.code, error.what, error.hint, error.values, type(error))
    program_file.save(program, folder / f"rank-{rank}.wt")
    kept = (str(ending.outcome), ending.detail, ending.exit_status, ending.shown, told)
    write_whole(folder / f"ending-{rank}", pickle.dumps(kept))


def _collect(folder: Path, own: int) -> list[RankRecording]:
    ranks = [int(path.name.removeprefix("ended-")) for path in folder.glob("ended-*")]
    return [_recording(folder, rank) for rank in ranks if rank != own]


def _recording(folder: Path, rank: int) -> RankRecording:
    try:
        log = (folder / f"log-{rank}").read_text(errors="replace")[-LOG_TAIL:]
    except FileNotFoundError:
        log = ""
    path = folder / f"ending-{rank}"
    if not path.exists():
        error = WindtunnelError(
            "E233",
            f"the process that recorded rank {rank} died",
            hint="is there enough memory for one process per pipeline stage? its last words are above",
            values={"rank": rank},
        )
        ending = Ending(Outcome.SCRIPT_ERROR, "its process died", error.exit_status, log, error)
        return RankRecording(rank, ending, None, log)
    outcome, detail, exit_status, shown, told = pickle.loads(path.read_bytes())
    said = None
    if told is not None:
        code, what, hint, values, kind = told
        said = kind(code, what, hint=hint, values=values)
    ending = Ending(Outcome(outcome), detail, exit_status, shown, said)
    return RankRecording(rank, ending, program_file.load(folder / f"rank-{rank}.wt"), log)
