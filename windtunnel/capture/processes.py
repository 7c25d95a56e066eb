"""``multiprocessing.Process``: of the ranks that a script starts one by one, the recorded one's runs here, in place.

A process is taken for a rank when it is given its own number, in order from 0, and its function comes to join a
process group; anything else (loaders, loggers) is left alone. Once the rank has run, this process ends as that
one would: what the parent does afterwards, with the results of all, is not the rank's.
What this is not: ``mp.spawn``, which starts all at once (``spawn.py``).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

import torch.distributed as dist

from windtunnel.capture.session import Session
from windtunnel.capture.spawn import index_among
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import NoticeKind

_JOINS = frozenset(
    {"init_process_group", "init_distributed", "initialize_distributed", "Accelerator", "PartialState"}
)


@contextmanager
def started_in_place(session: Session) -> Iterator[None]:
    """While it lasts, a started process that is a rank of ``session``'s world runs here or nowhere."""
    process: Any = BaseProcess
    start = process.start
    ranks = _Ranks(session)

    @functools.wraps(start)
    def start_or_run(self: Any) -> None:
        if ranks.has(self):
            ranks.start(self)
        else:
            start(self)

    process.start = start_or_run
    try:
        yield
    finally:
        process.start = start


@dataclass
class _Ranks:
    """The processes that were taken for ranks, in the order in which they were started."""

    session: Session
    started: list[Any] = field(default_factory=list)

    def has(self, process: Any) -> bool:
        """Whether ``process`` is the next rank."""
        if self.session.world_size == 1 or dist.is_initialized():
            return False
        function = process._target or type(process).run
        own = [] if process._target else [v for k, v in vars(process).items() if not k.startswith("_")]
        given = [*process._args, *process._kwargs.values(), *own]
        is_next = any(type(value) is int and value == len(self.started) for value in given)
        return is_next and any(_joins(f) for f in (function, *filter(callable, given)))

    def start(self, process: Any) -> None:
        self.started.append(process)
        process._popen = _Elsewhere(self)
        if len(self.started) == self.session.rank + 1:
            self.run(process)

    def run(self, process: Any) -> None:
        """Be the process, from here to its end."""
        VirtualTensor.state.recorder.notice(
            NoticeKind.PRETENDED,
            "Process: of the ranks that the script starts the recorded one runs, in place",
        )
        process.run()
        raise SystemExit(0)

    def joined(self) -> None:
        """All are started. Raises E243 where they are not as many as there are cards."""
        self.run(self.started[index_among(self.session, len(self.started))])


@dataclass
class _Elsewhere:
    """What a process of another rank shows its parent: it has ended."""

    ranks: _Ranks
    returncode: int = 0
    pid: int = 0
    sentinel: int = 0

    def poll(self, flag: int = 0) -> int:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The parent joins; the recorded rank is none of the first, or it had run by now."""
        self.ranks.joined()
        return self.returncode

    def terminate(self) -> None:
        """There is nothing to end."""

    kill = interrupt = close = terminate


def _joins(function: Any) -> bool:
    """Whether a function, or one of its own module that it calls, asks for a process group."""
    return _code_joins(function, set())


def _code_joins(function: Any, seen: set[int]) -> bool:
    plain = (
        function.func if isinstance(function, functools.partial) else getattr(function, "__func__", function)
    )
    code = getattr(plain, "__code__", None)
    if code is None or id(code) in seen or plain.__module__.partition(".")[0] in ("torch", "multiprocessing"):
        return False
    seen.add(id(code))
    names = _names(code)
    called = [plain.__globals__.get(name) for name in names]
    return bool(names & _JOINS) or any(
        _code_joins(f, seen) for f in called if isinstance(f, types.FunctionType)
    )


def _names(code: types.CodeType) -> set[str]:
    nested = [value for value in code.co_consts if isinstance(value, types.CodeType)]
    return set(code.co_names).union(*map(_names, nested))
