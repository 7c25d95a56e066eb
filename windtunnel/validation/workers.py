"""Calls of one function spread over processes, answers in the order of the calls.

A process is sent its next call when it has answered the last, so that long and short ones even out. Neither an
interrupted nor a killed parent leaves any behind.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TypeVar, cast

from windtunnel.errors import InternalError

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    function: Callable[[Asked], Answered], asked: Sequence[Asked], processes: int
) -> Generator[Answered]:
    """``function`` of each, in order. One process: this one. ``function`` must be importable by name.

    Raises:
        InternalError: E999, a process was killed from outside.
        Exception: whatever the function raised, with where.
    """
    processes = min(processes, len(asked))
    if processes < 2:
        yield from map(function, asked)
        return
    # a fresh interpreter: libraries that run threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(function, theirs), daemon=True)
            worker.start()
            theirs.close()
            workers[ours] = worker
        yield from _answers(asked, list(workers))
    finally:
        for pipe, worker in workers.items():
            pipe.close()
            worker.terminate()
            worker.join()


def _answers(asked: Sequence[Asked], pipes: Sequence[Connection]) -> Iterator[Answered]:
    """Hand out calls, at most one a process, and keep answers that come before their turn."""
    left = deque(range(len(asked)))
    doing: dict[Connection, int] = {}
    early: dict[int, tuple[Answered, Exception | None]] = {}
    for pipe in pipes:
        _send(pipe, doing, asked, left)
    for turn in range(len(asked)):
        while turn not in early:
            for ready in wait(list(doing)):
                pipe = cast(Connection, ready)
                number = doing.pop(pipe)
                early[number] = _received(pipe, asked[number])
                _send(pipe, doing, asked, left)
        found, error = early.pop(turn)
        if error is not None:
            raise error
        yield found


def _send(pipe: Connection, doing: dict[Connection, int], asked: Sequence[Asked], left: deque[int]) -> None:
    if left:
        doing[pipe] = left.popleft()
        pipe.send(asked[doing[pipe]])


def _received(pipe: Connection, asked: object) -> tuple[Answered, Exception | None]:
    """The answer, or what was raised instead."""
    try:
        return cast("tuple[Answered, Exception | None]", pipe.recv())
    except (EOFError, ConnectionError):
        raise InternalError(
            "E999",
            f"a worker process was killed while it worked on {asked}",
            hint="where memory is short, take one processor: taskset -c 0 windtunnel …",
        ) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(function: Callable[[Asked], Answered], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when it ends
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            asked = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[object, Exception | None] = function(asked), None
        except Exception as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            answer = None, error
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionError):
            return
