"""A command run to its end, with what it took."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ran:
    """What a process wrote, its processor seconds and its largest resident memory in GB."""

    stdout: str
    processor_s: float
    peak_gb: float


def run(command: list[str], folder: Path | None = None, limit_s: float = 1800.0, threads: int = 1) -> Ran:
    """Raises RuntimeError with the last of what it said, for any exit status but 0 and beyond ``limit_s``."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=complained, env=environment)
        timer = threading.Timer(limit_s, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        is_late = not timer.is_alive()
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        complained.seek(0)
        text, errors = said.read(), complained.read()
    if is_late:
        raise RuntimeError(f"not done after {limit_s:.0f} s")
    if process.returncode:
        raise RuntimeError((errors.strip() or text.strip())[-600:] or f"exit status {process.returncode}")
    return Ran(text, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)
