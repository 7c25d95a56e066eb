"""``--virtual-clock``: the script's own ``time.time()`` and its kind answer what the chip's clock would say.

Only the script and the libraries it uses see virtual time; Python's and PyTorch's own code keeps real time
(their time-outs wait for real threads and processes).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import user_code
from windtunnel.capture.session import Session
from windtunnel.program import marks

_SECONDS = ("time", "perf_counter", "monotonic", "process_time", "thread_time")


@contextmanager
def virtual_time(session: Session) -> Iterator[None]:
    """Inside the block ``time`` answers from the session's clock, starting at the real time of day."""
    patches = Patches()
    started = time.time()

    def now_s(name: str) -> float:
        passed: float = session.clock.now_s()
        return started + passed if name == "time" else passed

    for name in _SECONDS:
        patches.set(time, name, _seconds(name, getattr(time, name), now_s))
        patches.set(time, f"{name}_ns", _nanoseconds(name, getattr(time, f"{name}_ns"), now_s))
    patches.set(time, "sleep", _sleep(session, time.sleep))
    try:
        yield
    finally:
        patches.restore()


def _seconds(name: str, real: Callable[[], float], now_s: Callable[[str], float]) -> Callable[[], float]:
    def read() -> float:
        return now_s(name) if user_code(sys._getframe(1).f_code) else real()

    return read


def _nanoseconds(name: str, real: Callable[[], int], now_s: Callable[[str], float]) -> Callable[[], int]:
    def read() -> int:
        return int(1e9 * now_s(name)) if user_code(sys._getframe(1).f_code) else real()

    return read


def _sleep(session: Session, real: Callable[[float], None]) -> Callable[[Any], None]:
    def sleep(seconds: Any) -> None:
        if user_code(sys._getframe(1).f_code):
            session.recorder.emit(marks.HOST_DELAY, seconds=float(seconds))
        else:
            real(seconds)

    return sleep
