"""Every command that a claim names is one that the command line takes."""

from __future__ import annotations

import importlib
import shlex
from functools import cache
from pathlib import Path

import pytest

from windtunnel.claims import evidence
from windtunnel.claims.catalogue import CLAIMS
from windtunnel.cli import main
from windtunnel.cli.parser import Parser, add_global_options

PAGE = Path(__file__).parents[3] / "docs" / "claims.md"


def _on_the_page() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.startswith("    windtunnel ")]


ALL = sorted(
    {
        *(claim.command for claim in CLAIMS),
        *_on_the_page(),
        *(run.command for run in evidence.runs() if run.command.startswith("windtunnel")),
    }
)
QUICK = [command for command in ALL if command.split()[1] in ("chips", "explain")]


@cache
def _parser(command: str) -> Parser:
    modules = {name: module for name, module, _ in main.available()}
    parser = Parser(prog="windtunnel")
    subparsers = parser.add_subparsers(dest="command")
    importlib.import_module(modules[command]).add_parser(subparsers)
    add_global_options(subparsers.choices[command], top=False)
    parser.commands = subparsers.choices
    return parser


def test_the_page_names_commands() -> None:
    assert len(_on_the_page()) >= len(CLAIMS)
    assert len(QUICK) >= 5


@pytest.mark.parametrize("command", ALL)
def test_the_command_line_takes_it(command: str) -> None:
    words = shlex.split(command)
    assert words[0] == "windtunnel"
    parser = _parser(words[1])
    taken, unknown = parser.parse_known_args(words[1:])
    assert not unknown
    if words[1] == "align":  # what follows the script is the script's
        own = parser.commands["align"]._option_string_actions
        assert not [word for word in taken.target if word in own], "options stand before the script"


@pytest.mark.parametrize("command", QUICK)
def test_it_runs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out.strip()
