"""Keeps stdout for our own answer: under ``--json`` everything the script prints goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def script_output(to_stderr: bool) -> Iterator[None]:
    """Inside the block, prints go to stderr: of Python, of C libraries and of child processes."""
    if not to_stderr:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.close(kept)
