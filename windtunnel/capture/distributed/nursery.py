"""Starts the processes of further ranks: a fork of this one, made before the script changes anything.

It waits for rank numbers on a pipe that every rank may write to, forks one process for each new number, and
writes ``ended-RANK`` when it is over. It ends when told so and all its children have, or when its parent
dies; nothing is left behind. Forking saves each rank the import of PyTorch.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from windtunnel.capture.distributed.mailbox import write_whole

_DONE, _STOP = "done", "stop"
_PERIOD_S = 0.02

RankMain = Callable[[int, Callable[[int], None]], str]
"""Runs one rank in its own process, given a way to ask for others; answers how it ended, in a few words."""


@dataclass(slots=True)
class Nursery:
    """The parent's side."""

    pid: int
    pipe: int

    @classmethod
    def open(cls, folder: Path, rank_main: RankMain, own_rank: int) -> Nursery:
        """Fork the nursery. ``rank_main`` runs in the processes that it forks."""
        sys.stdout.flush()
        sys.stderr.flush()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _Nurse(folder, rank_main, reading, writing, {own_rank}).run()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(reading)
        return cls(pid, writing)

    def start(self, rank: int) -> None:
        """Ask for a rank; asking twice is harmless."""
        _say(self.pipe, str(rank))

    def wait(self) -> None:
        """Until every rank asked for, by anybody, has ended."""
        self._end(_DONE)

    def stop(self) -> None:
        """End the ranks that still run."""
        self._end(_STOP)

    def _end(self, word: str) -> None:
        if self.pid:
            _say(self.pipe, word)
            os.close(self.pipe)
            os.waitpid(self.pid, 0)
            self.pid = 0


@dataclass(slots=True)
class _Nurse:
    folder: Path
    rank_main: RankMain
    reading: int
    writing: int
    known: set[int]
    children: dict[int, int] = field(default_factory=dict)  # process → rank
    rest: str = ""
    done: bool = False

    def run(self) -> None:
        parent = os.getppid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and says stop
        while not (self.done and not self.children):
            ended = self._reap()
            self._listen(0.0 if ended else _PERIOD_S)
            for rank in ended:
                path = self.folder / f"ended-{rank}"
                if not path.exists():
                    write_whole(path, b"its process died")
            if os.getppid() != parent:
                self._kill()
                return

    def _listen(self, timeout_s: float) -> None:
        while select.select([self.reading], [], [], timeout_s)[0]:
            data = os.read(self.reading, 1 << 16).decode()
            if not data:
                break
            *words, self.rest = (self.rest + data).split("\n")
            for word in words:
                self._hear(word)
            timeout_s = 0.0

    def _hear(self, word: str) -> None:
        if word == _STOP:
            self._kill()
            self.done = True
        elif word == _DONE:
            self.done = True
        elif int(word) not in self.known:
            self.known.add(int(word))
            self._fork(int(word))

    def _fork(self, rank: int) -> None:
        write_whole(self.folder / f"begun-{rank}", b"")
        pid = os.fork()
        if pid:
            self.children[pid] = rank
            return
        ended = "its process died"
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.close(self.reading)
            log = os.open(self.folder / f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            writing = self.writing
            ended = self.rank_main(rank, lambda other: _say(writing, str(other)))
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            write_whole(self.folder / f"ended-{rank}", ended.encode())
            os._exit(0)

    def _reap(self) -> list[int]:
        over = [pid for pid in self.children if os.waitpid(pid, os.WNOHANG)[0]]
        return [self.children.pop(pid) for pid in over]

    def _kill(self) -> None:
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self.children:
            os.waitpid(pid, 0)
        self.children.clear()


def _say(pipe: int, word: str) -> None:
    os.write(pipe, f"{word}\n".encode())  # whole lines below the pipe's buffer size are never mixed
