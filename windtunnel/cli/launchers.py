"""A line that starts with `python` or `torchrun`: what it would start, so that the line can stay as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePath

from windtunnel.errors import WindtunnelError

_PYTHON = re.compile(r"python(\d+(\.\d+)*)?(\.exe)?")
_WITH_VALUE = ("-W", "-X")
_TORCHRUN_MODULES = ("torch.distributed.run", "torch.distributed.launch")
_OTHERS = ("accelerate", "deepspeed", "mpirun", "srun", "horovodrun")


@dataclass(frozen=True, slots=True)
class Line:
    """What a line starts.

    Attributes:
        words: the script or module, then its arguments.
        processes: how many the launcher was asked for; None where it was not asked for a number.
    """

    words: tuple[str, ...]
    is_module: bool = False
    processes: int | None = None


def unwrapped(words: Sequence[str], *, is_module: bool) -> Line:
    """The script behind ``python`` and ``torchrun``; any other line as it is.

    Raises:
        WindtunnelError: E436, a launcher that is not understood, or a line of one that names no script.
    """
    name = PurePath(words[0]).name
    if is_module and words[0] in _TORCHRUN_MODULES:
        return _torchrun(words)
    if is_module or words[0].endswith(".py"):
        return Line(tuple(words), is_module)
    if _PYTHON.fullmatch(name):
        return _python(words)
    if name == "torchrun":
        return _torchrun(words)
    if name in _OTHERS:
        raise WindtunnelError(
            "E436",
            f"`{name}` starts processes in a way that is not read here",
            hint="name the script itself and the cards: windtunnel run --on mtt-s5000:8 train.py",
        )
    return Line(tuple(words))


def _python(words: Sequence[str]) -> Line:
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word == "-m" and rest:
            return unwrapped(rest, is_module=True)
        if word in _WITH_VALUE and rest:
            rest.pop(0)
        elif not word.startswith("-"):
            return Line((word, *rest))
        elif word == "-c":
            break
    raise _no_script(words)


def _torchrun(words: Sequence[str]) -> Line:
    """By PyTorch's own parser, so that each of its options is known with its values."""
    if find_spec("torch") is None:
        return Line(tuple(words))  # said later, as for any script
    from torch.distributed.run import get_args_parser

    parser = get_args_parser()
    try:
        args = parser.parse_args(list(words[1:]))
    except SystemExit:  # its own message is on stderr
        raise _no_script(words) from None
    least, _, most = str(args.nnodes).partition(":")
    processes = str(args.nproc_per_node)
    given = any(word.startswith(("--nproc", "--nnodes")) for word in words)
    known = given and most in ("", least) and processes.isdigit()
    return Line(
        (args.training_script, *args.training_script_args),
        bool(args.module),
        int(least) * int(processes) if known else None,
    )


def check_size(line: Line, cards: int, on: str) -> None:
    """Refuse a launcher's number of processes that is not the number of cards.

    Raises:
        WindtunnelError: E437.
    """
    if line.processes is None or line.processes == cards:
        return
    chip = on.partition(",")[0].partition(":")[0]
    raise WindtunnelError(
        "E437",
        f"the launcher starts {line.processes} processes, and --on has {cards} card{'s' if cards > 1 else ''}",
        hint=f"--on {chip}:{line.processes}",
    )


def _no_script(words: Sequence[str]) -> WindtunnelError:
    return WindtunnelError(
        "E436",
        f"`{' '.join(words)}` starts no script or module",
        hint="windtunnel run --on mtt-s5000 train.py",
    )
