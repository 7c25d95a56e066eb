"""Calls spread over processes: the same answers in the same order, and nothing left behind when one fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from windtunnel.errors import InternalError
from windtunnel.validation.workers import cores, in_order


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.3 if number == 0 else 0.0)  # the first answers last
    return number * number, os.getpid()


def fails_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def dies_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_answers_come_in_order_from_as_many_processes_as_asked() -> None:
    alone = list(in_order(slow_square, range(8), 1))
    apart = list(in_order(slow_square, range(8), 2))
    assert [square for square, _ in apart] == [square for square, _ in alone] == [n * n for n in range(8)]
    assert {process for _, process in alone} == {os.getpid()}
    assert len({process for _, process in apart} - {os.getpid()}) == 2
    assert cores() >= 1


def test_an_error_is_raised_where_the_answer_was_due_with_its_place() -> None:
    answers = in_order(fails_at_three, range(6), 2)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three") as raised:
        next(answers)
    assert "fails_at_three" in raised.value.__notes__[0]
    assert not multiprocessing.active_children()


def test_a_process_that_is_killed_is_said_and_not_waited_for() -> None:
    with pytest.raises(InternalError, match="killed while it worked on 3"):
        list(in_order(dies_at_three, range(6), 2))
    assert not multiprocessing.active_children()


def test_a_killed_parent_leaves_nobody_behind() -> None:
    script = (
        "from tests.unit.validation.test_workers import naps\n"
        "from windtunnel.validation.workers import in_order\n"
        "if __name__ == '__main__':\n"
        "    for process in in_order(naps, [0.0, 0.0, 60.0, 60.0], 2): print(process, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 30
    while any(map(_runs, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_runs, workers))


def naps(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
