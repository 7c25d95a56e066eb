"""argparse with coded errors, suggestions, and the options that every command shares."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from windtunnel.errors import WindtunnelError
from windtunnel.specs.table import did_you_mean


class Parser(argparse.ArgumentParser):
    """Raises WindtunnelError E991 where argparse would print and exit; takes no abbreviated options."""

    commands: Mapping[str, argparse.ArgumentParser] = {}

    def __init__(self, **keywords: Any) -> None:
        keywords.setdefault("allow_abbrev", False)
        super().__init__(**keywords)

    def error(self, message: str) -> NoReturn:
        raise WindtunnelError("E991", message, hint=f"see {self.prog} --help")

    def chosen(self, command: str | None) -> argparse.ArgumentParser:
        """The parser of the command, or this one."""
        return self.commands.get(command or "", self)


def add_global_options(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """--json, -q and -v, before or after the command; a command's own definitions stay."""
    default = False if top else argparse.SUPPRESS
    options = (
        (("--json",), "print one JSON object on stdout and nothing else"),
        (("-q", "--quiet"), "say only what was asked for"),
        (("-v", "--verbose"), "say more: notices in full, what was read"),
    )
    taken = parser._option_string_actions
    for flags, help_text in options:
        if not any(flag in taken for flag in flags):
            parser.add_argument(*flags, action="store_true", default=default, help=help_text)


def add_chip_options(parser: argparse.ArgumentParser) -> None:
    """--set and --chips, for every command that looks up a chip: ``args.set`` and ``args.chips``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="replace one number, as memory_bytes_per_s=1.4e12 or h20.peak_flops.fp64=2T; may repeat",
    )
    parser.add_argument(
        "--chips",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a folder with chips of your own; may repeat (also the variable WINDTUNNEL_CHIPS)",
    )


def unknown_command(command: str, names: Sequence[str]) -> WindtunnelError:
    """E990."""
    return WindtunnelError(
        "E990",
        f"`{command}` is not a command",
        hint=f"{did_you_mean(command, names)}commands: {', '.join(names)}",
    )


def unknown_arguments(extra: Sequence[str], parser: argparse.ArgumentParser) -> WindtunnelError:
    """E991, for words that nobody asked for."""
    first = extra[0]
    option = first.partition("=")[0]
    kind = "option" if first.startswith("-") else "argument"
    near = did_you_mean(option, list(parser._option_string_actions)) if kind == "option" else ""
    return WindtunnelError(
        "E991", f"`{option}` is not an {kind} of `{parser.prog}`", hint=f"{near}see {parser.prog} --help"
    )
