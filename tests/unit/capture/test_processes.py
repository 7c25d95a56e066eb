"""Which processes are taken for ranks: those that get their own number and come to join a process group."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from multiprocessing import Process
from types import SimpleNamespace
from typing import Any

import pytest

from windtunnel.capture.processes import _Ranks


def init_process_group() -> None: ...


def joins(rank: int, size: int) -> None:
    init_process_group()


def joins_later(rank: int) -> None:
    def inner() -> None:
        joins(rank, 2)

    inner()


def works(index: int) -> None:
    print(index)


def given(function: Callable[..., Any], rank: int) -> None:
    function(rank)


CASES = [
    (Process(target=joins, args=(0, 2)), True),
    (Process(target=joins_later, kwargs={"rank": 0}), True),
    (Process(target=partial(joins, size=2), args=(0,)), True),
    (Process(target=given, args=(joins, 0)), True),
    (Process(target=given, args=(works, 0)), False),
    (Process(target=works, args=(0,)), False),
    (Process(target=joins, args=(1, 2)), False),  # not the next
    (Process(target=joins, args=(False, 2)), False),  # not a number
]


@pytest.mark.parametrize(("process", "is_rank"), CASES)
def test_ranks_are_told_from_others(process: Process, is_rank: bool) -> None:
    session: Any = SimpleNamespace(world_size=2, rank=0)
    assert _Ranks(session).has(process) is is_rank
    alone: Any = SimpleNamespace(world_size=1, rank=0)
    assert not _Ranks(alone).has(process)


def test_the_next_process_has_the_next_number() -> None:
    session: Any = SimpleNamespace(world_size=3, rank=2)
    ranks = _Ranks(session)
    first = Process(target=joins, args=(0, 3))
    ranks.start(first)
    assert first.exitcode == 0
    assert not ranks.has(Process(target=joins, args=(0, 3)))
    assert ranks.has(Process(target=joins, args=(1, 3)))
