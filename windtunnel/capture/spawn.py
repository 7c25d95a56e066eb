"""``torch.multiprocessing.spawn``: of the processes that a script starts, the recorded rank's runs here, in place.

A script that starts its own ranks (the classic tutorial of data parallelism) hands a function and a number of
processes over. Each recorded rank runs the whole script in a process of its own already (``distributed/world.py``),
so in each the function is called once, with that rank's index, in place of starting anything.
What this is not: ``multiprocessing.Process``, whose processes may be anything (``processes.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.multiprocessing

from windtunnel.capture.module import module as card
from windtunnel.capture.session import Session
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import NoticeKind


class Joined:
    """What ``spawn(join=False)`` answers: processes that have ended."""

    processes: Sequence[Any] = ()

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """They have ended."""
        return True

    def pids(self) -> list[int]:
        """There were none."""
        return []


@contextmanager
def spawned_in_place(session: Session) -> Iterator[None]:
    """While it lasts, ``spawn`` and ``start_processes`` call the function of the rank that ``session`` records."""
    modules: tuple[Any, ...] = (torch.multiprocessing, sys.modules["torch.multiprocessing.spawn"])
    names = ("spawn", "start_processes")
    before = [(module, name, getattr(module, name)) for module in modules for name in names]

    def run(
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        nprocs: int = 1,
        join: bool = True,
        daemon: bool = False,
        start_method: str = "spawn",
        **_: Any,
    ) -> Joined | None:
        fn(index_among(session, nprocs), *args)
        return None if join else Joined()

    for module, name, _original in before:
        setattr(module, name, run)
    try:
        yield
    finally:
        for module, name, original in before:
            setattr(module, name, original)


def index_among(session: Session, nprocs: int) -> int:
    """Which of ``nprocs`` processes the recorded rank is. Raises E243 where it is none of them."""
    world, node = session.world_size, card.device_count()
    if nprocs not in (world, node):
        raise WindtunnelError(
            "E243",
            f"the script starts {nprocs} processes, and runs on {_cards(world)}",
            hint=f"ask for as many: --on {session.chip.name}:{nprocs}, or let the script start one for each card",
            values={"line": VirtualTensor.state.context.current_line()},
        )
    VirtualTensor.state.recorder.notice(
        NoticeKind.PRETENDED, f"spawn: of {nprocs} processes the recorded rank's runs, in place"
    )
    return session.rank % nprocs


def _cards(count: int) -> str:
    return "one card" if count == 1 else f"{count} cards"
