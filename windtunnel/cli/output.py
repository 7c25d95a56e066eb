"""What commands print: data on stdout, talk and progress on stderr.

Tables are ``windtunnel.report.text_table.render``, which never cuts a number; this module knows how wide the
output is, and how JSON looks.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping
from types import TracebackType

from windtunnel.errors import WindtunnelError

PIPED_WIDTH = 100
"""Columns where there is no terminal to ask and COLUMNS is not set."""

PROGRESS_AFTER_S = 1.0
PROGRESS_EVERY_S = 0.1


def width() -> int:
    """Columns to fill: COLUMNS if set, else the terminal's, else ``PIPED_WIDTH``. At least 40."""
    stated = os.environ.get("COLUMNS", "")
    if not stated.isdigit() and not sys.stdout.isatty():
        return PIPED_WIDTH
    return max(40, shutil.get_terminal_size((PIPED_WIDTH, 24)).columns)


def styled() -> bool:
    """Whether stdout is a terminal that takes escape codes."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def print_lines(lines: Iterable[str]) -> None:
    """Data for people, on stdout."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def wrapped(text: str, columns: int, indent: str = "") -> list[str]:
    """A paragraph as lines of at most ``columns`` letters; what has no space in it stays whole."""
    return textwrap.wrap(
        text,
        columns,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def say(text: str, *, quiet: bool = False) -> None:
    """Talk, on stderr; nothing under ``-q``."""
    if not quiet:
        print(text, file=sys.stderr)


def print_json(data: Mapping[str, object]) -> None:
    """The one JSON object, on stdout. Numbers that are not finite become null."""
    sys.stdout.write(json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def success(command: str, data: Mapping[str, object]) -> dict[str, object]:
    """The object of a command that answered: schema and status before its own keys."""
    return {"schema": schema(command), "status": "ok", **data}


def failure(error: WindtunnelError, command: str) -> dict[str, object]:
    """The object of a command that failed: ``status`` is ``no`` for an answer, else ``error``."""
    status = "no" if error.exit_status == 1 else "error"
    return {"schema": schema(command), "status": status, "error": error.to_dict()}


def schema(command: str) -> str:
    """Name and major version of a command's object."""
    return f"windtunnel.{command}/1"


class Progress:
    """One line on stderr that is rewritten; only on a terminal, only after a second, gone at the end.

    Where the work is interrupted, the last state is said and stays.

    with Progress("recording", quiet=args.quiet) as progress:
        progress.update("41,312 operations")
    """

    def __init__(self, label: str, *, quiet: bool = False) -> None:
        self._label = label
        self._on = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._state = ""
        self._next_s = time.monotonic() + PROGRESS_AFTER_S
        self._shown = False

    def update(self, state: str) -> None:
        """Say where the work is; cheap when it is not time to show."""
        self._state = state
        if not self._on or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + PROGRESS_EVERY_S
        self._shown = True
        columns = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns
        sys.stderr.write("\r\x1b[K" + f"{self._label}: {state}"[: columns - 1])
        sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        if kind is KeyboardInterrupt and self._state:
            say(f"{self._label}: {self._state}", quiet=self._quiet)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
