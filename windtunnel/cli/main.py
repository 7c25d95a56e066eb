"""The command `windtunnel`: finds a command's module, runs it, turns errors into text, JSON and status.

Exit status: 0 yes, 1 the answer is no, 2 bad input, 3 our bug, 130 interrupted. Data goes to stdout, talk to
stderr. Only the module of the command asked for is imported: `windtunnel chips` starts without PyTorch.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec

from windtunnel import __version__
from windtunnel.cli import output
from windtunnel.cli.parser import Parser, add_global_options, unknown_arguments, unknown_command
from windtunnel.errors import InternalError, WindtunnelError

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("run", "windtunnel.cli.run", "run your script on a virtual card and say how long a step takes"),
    ("fit", "windtunnel.cli.fit", "whether a model fits in memory, and on how many cards"),
    ("plan", "windtunnel.cli.plan", "search for the best layout or deployment"),
    ("serve", "windtunnel.cli.serve", "predict serving, or answer requests at a card's pace"),
    ("align", "windtunnel.cli.align", "whether two runs agree numerically, and where they part"),
    ("port", "windtunnel.cli.port", "what ties a codebase to one vendor"),
    ("report", "windtunnel.cli.report", "a saved result as page, trace or table"),
    ("chips", "windtunnel.cli.chips", "the chips and every number known about them"),
    ("science", "windtunnel.cli.science", "how fast molecular dynamics runs, against system size"),
    ("claims", "windtunnel.cli.claims", "public claims about the MTT S5000, checked one by one"),
    ("validate", "windtunnel.cli.validate", "predictions against public measurements"),
    ("calibrate", "windtunnel.cli.calibrate", "fit the kernel costs again from measured tables"),
    ("explain", "windtunnel.cli.explain", "where one prediction comes from"),
    ("measure", "windtunnel.cli.measure", "measure a real card for the catalogue"),
)
"""Name, module and one line of help. A command whose module is absent is not offered."""

EXIT_BUG = 3
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What writing to a full disk or a broken one answers."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and answer its exit status. Nothing but SystemExit of `--help` comes out."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = _command_in(arguments)
    try:
        status = _run(arguments, command)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _abandon_stdout()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except InternalError as error:
        traceback.print_exc()
        return _failed(error, arguments, command)
    except WindtunnelError as error:
        return _failed(error, arguments, command)
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            traceback.print_exc()
            return _failed(_bug(error), arguments, command)
        _abandon_stdout()
        return _failed(_unwritten(error), arguments, command)
    except Exception as error:  # anything else is a bug of ours
        traceback.print_exc()
        return _failed(_bug(error), arguments, command)


def _unwritten(error: OSError) -> WindtunnelError:
    return WindtunnelError(
        "E925", f"cannot write the answer: {error.strerror}", hint="send it where there is room, or make some"
    )


def available() -> list[tuple[str, str, str]]:
    """The commands whose module is there."""
    return [entry for entry in COMMANDS if find_spec(entry[1]) is not None]


def _run(arguments: Sequence[str], command: str | None) -> int:
    offered = available()
    names = [name for name, _, _ in offered]
    if command is not None and command not in names:
        raise unknown_command(command, names)
    parser = _parser(offered, command)
    args, extra = parser.parse_known_args(arguments)
    if extra:
        raise unknown_arguments(extra, parser.chosen(command))
    if command is None:
        parser.print_help()
        return 0
    run = importlib.import_module({name: module for name, module, _ in offered}[command]).run
    return int(run(args))


def _parser(offered: Sequence[tuple[str, str, str]], command: str | None) -> Parser:
    """The parser of the whole line; of the commands, only the one asked for knows its options."""
    parser = Parser(
        prog="windtunnel",
        description="A virtual accelerator and cluster for PyTorch: run unmodified code on cards you do not "
        "have.",
        epilog="Exit status: 0 yes, 1 the answer is no, 2 bad input, 3 our bug.",
    )
    parser.add_argument("--version", action="version", version=f"windtunnel {__version__}")
    add_global_options(parser, top=True)
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, module, help_text in offered:
        if name == command:
            importlib.import_module(module).add_parser(subparsers)
            add_global_options(subparsers.choices[name], top=False)
        else:
            subparsers.add_parser(name, help=help_text)
    parser.commands = subparsers.choices
    return parser


def _command_in(arguments: Sequence[str]) -> str | None:
    """The first word that is not an option; global options take no values."""
    return next((word for word in arguments if not word.startswith("-")), None)


def _failed(error: WindtunnelError, arguments: Sequence[str], command: str | None) -> int:
    """The error on stderr, and as an object on stdout where our part of the line says --json."""
    try:
        if _wants_json(arguments, command):
            output.print_json(output.failure(error, command or "windtunnel"))
            sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
    print(error.render(), file=sys.stderr)
    return error.exit_status


def _wants_json(arguments: Sequence[str], command: str | None) -> bool:
    """Whether --json stands before the arguments of the user's script, which are not ours to read."""
    for word in arguments:
        if word == "--json":
            return True
        if command in ("run", "align") and (word == "-m" or word.endswith((".py", ".wt"))):
            return False
    return False


def _bug(error: Exception) -> InternalError:
    return InternalError(
        "E999",
        f"internal error: {type(error).__name__}: {error}",
        hint="this is a bug in Windtunnel: please report it with the traceback above",
        values={"version": __version__, "command": " ".join(sys.argv[1:])},
    )


def _abandon_stdout() -> None:
    """Whoever read our output has gone: keep the interpreter from complaining at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
