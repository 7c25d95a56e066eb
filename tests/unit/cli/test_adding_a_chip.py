"""`docs/adding-a-chip.md` tells the truth: its files are the examples, and its commands work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from windtunnel.cli.main import main
from windtunnel.specs.catalogue import chip
from windtunnel.specs.files import PRECISIONS, UNITS
from windtunnel.specs.targets import parse_target

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "adding-a-chip.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples" / "chips"
COMMANDS = re.findall(r"^\$ windtunnel (.*)$", PAGE, re.MULTILINE)
FILES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_files_shown_are_the_examples() -> None:
    examples = [EXAMPLES / "my-card" / "chip.toml", EXAMPLES / "my-cluster.toml"]
    assert [example.read_text(encoding="utf-8") for example in examples] == FILES


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_work(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out


def test_every_key_is_named() -> None:
    assert all(key in PAGE for key in (*UNITS, *PRECISIONS))


def test_the_example_card_and_cluster() -> None:
    card = chip("mine", folders=[EXAMPLES])
    assert card.peak_flops["fp8"].value == 1.7e15
    assert card.l2_bytes.value == chip("h100-sxm").l2_bytes.value
    (cluster,) = parse_target(str(EXAMPLES / "my-cluster.toml"))
    assert cluster.fabric.oversubscription.value == 2
    (cards,) = parse_target("my-card:16", folders=[EXAMPLES])
    assert cards.node.scale_up is card.scale_up
