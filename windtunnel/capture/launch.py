"""Runs a script on the card as ``python`` would: as ``__main__``, with its own arguments and folder.

What the script raises is shown as Python shows it, less our own frames; whatever was recorded until then is
kept. What this is not: choosing chips, pricing or printing results (``cli/run.py``).
"""

from __future__ import annotations

import builtins
import importlib.machinery
import io
import os
import runpy
import sys
import sysconfig
import traceback
import types
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from windtunnel.capture.cuda_names import CudaNames
from windtunnel.capture.processes import started_in_place
from windtunnel.capture.session import Session
from windtunnel.capture.spawn import spawned_in_place
from windtunnel.capture.steps import EnoughSteps
from windtunnel.capture.virtual_time import virtual_time
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import Outcome, Program

_LIBRARIES = ("<frozen", *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")})
_TORCH = os.path.dirname(torch.__file__) + os.sep
_WANTS_RANKS = "environment variable RANK expected"  # torch.distributed's words, outside a launcher
_ALONE = "the script is distributed: say on how many cards, as --on mtt-s5000:8"
EXIT_INTERRUPTED = 130  # as shells say it: 128 + SIGINT
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_OURS = (
    *(_PACKAGE + part + os.sep for part in ("capture", "cli", "align")),
    "<frozen runpy>",
    runpy.__file__,
)


@dataclass(frozen=True, slots=True)
class Target:
    """What to run: a script file, or a module as ``python -m`` runs it."""

    name: str
    argv: tuple[str, ...] = ()
    is_module: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How the script ended.

    Attributes:
        exit_status: what ``python`` would have exited with; 0 when it ended well or was stopped by us.
        shown: text for stderr: the script's own traceback or message.
        error: the coded error, if one ended it.
    """

    outcome: Outcome = Outcome.COMPLETE
    detail: str = ""
    exit_status: int = 0
    shown: str = ""
    error: WindtunnelError | None = None


def launch(session: Session, target: Target, *, virtual_clock: bool = False) -> tuple[Ending, Program]:
    """Run ``target`` under ``session`` until it ends, raises or has recorded enough steps.

    Never raises what the script raised: see ``Ending``. The program holds everything recorded until then.
    """
    with ExitStack() as stack:
        stack.enter_context(session)
        stack.enter_context(CudaNames(session))
        stack.enter_context(spawned_in_place(session))
        stack.enter_context(started_in_place(session))
        if virtual_clock:
            stack.enter_context(virtual_time(session))
        ending = run_target(target)
        flush_output()
    program = session.program(target.name, target.argv, ending.outcome, ending.detail)
    return ending, program


def run_target(target: Target) -> Ending:
    """Run it as ``python`` would, under whatever card is installed; never raises what the script raised."""
    try:
        if target.is_module:
            _run_module(target)
        else:
            _run_file(target)
    except EnoughSteps:
        return Ending()
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:
        return _exited(stop)
    except BaseException as error:  # everything a script can raise ends here
        return _raised(error)
    return Ending()


def _run_file(target: Target) -> None:
    path = target.name
    main = types.ModuleType("__main__")
    main.__dict__.update(
        __file__=path,
        __builtins__=builtins,
        __loader__=importlib.machinery.SourceFileLoader("__main__", path),
        __cached__=None,
    )
    with io.open_code(os.path.abspath(path)) as file:
        source = file.read()
    with _as_main(main, path, target.argv, os.path.dirname(os.path.abspath(path))):
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)


def _run_module(target: Target) -> None:
    with _as_main(None, target.name, target.argv, os.getcwd()):
        runpy.run_module(target.name, run_name="__main__", alter_sys=True)


@contextmanager
def _as_main(main: types.ModuleType | None, name: str, argv: tuple[str, ...], folder: str) -> Iterator[None]:
    """``sys`` as the script expects it; put back afterwards."""
    before = sys.modules["__main__"], sys.argv, sys.path[:]
    if main is not None:
        sys.modules["__main__"] = main
    sys.argv = [name, *argv]
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = before


def _interrupted() -> Ending:
    error = WindtunnelError(
        "E442",
        "interrupted; what was recorded until then is kept",
        hint="record fewer steps: windtunnel run --steps 1 SCRIPT",
    )
    return Ending(Outcome.INTERRUPTED, "interrupted", EXIT_INTERRUPTED, error=error)


def _exited(stop: SystemExit) -> Ending:
    code = stop.code
    if code is None or code == 0:
        return Ending()
    if isinstance(code, int):
        return Ending(Outcome.SCRIPT_ERROR, f"exit status {code}", code)
    return Ending(Outcome.SCRIPT_ERROR, str(code), 1, shown=f"{code}\n")


def _raised(error: BaseException) -> Ending:
    coded = coded_error_behind(error)
    if coded is not None:
        return Ending(Outcome.SCRIPT_ERROR, coded.what, coded.exit_status, error=coded)
    text = script_traceback(error)
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    begun = " ".join(line.strip() for line in lines[: 2 if lines[0].rstrip().endswith(":") else 1])
    summary = lines[-1] if isinstance(error, SyntaxError) else begun
    if isinstance(error, torch.OutOfMemoryError):
        return Ending(Outcome.OUT_OF_MEMORY, summary, 1, text)
    where = last_line(error)
    raised = WindtunnelError(
        "E440",
        f"the script raised {summary}",
        hint=_ALONE
        if _WANTS_RANKS in summary
        else "the traceback above is the script's own; does it run on a CPU with small sizes?",
        values={"line": where} if where else {},
    )
    return Ending(Outcome.SCRIPT_ERROR, summary, 2, text, raised)


def coded_error_behind(error: BaseException) -> WindtunnelError | None:
    """The coded error that ``error`` is or was raised from: compilers and engines wrap what they meet."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, WindtunnelError):
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


def script_traceback(error: BaseException) -> str:
    """The traceback as Python prints it, without our frames."""
    shown = traceback.TracebackException.from_exception(error)
    _trim(shown)
    return "".join(shown.format())


def last_line(error: BaseException) -> str:
    """``file:line`` of the innermost frame of the user's own; of a library's where there is none."""
    theirs = list(_their_frames(traceback.extract_tb(error.__traceback__)))
    frames = [frame for frame in theirs if not frame.filename.startswith(_LIBRARIES)] or theirs
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _trim(shown: Any) -> None:
    shown.stack = traceback.StackSummary.from_list(_their_frames(shown.stack))
    for behind in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if behind is not None:
            _trim(behind)


def _their_frames(frames: Iterable[traceback.FrameSummary]) -> Iterator[traceback.FrameSummary]:
    """Without ours, and without PyTorch's below our dispatch: on a real card those are C++."""
    below_dispatch = False
    for frame in frames:
        if frame.filename.startswith(_OURS):
            below_dispatch = below_dispatch or frame.name == "__torch_dispatch__"
        elif not (below_dispatch and frame.filename.startswith(_TORCH)):
            yield frame


def flush_output() -> None:
    """Bring out what the script printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the script closed it
            continue
