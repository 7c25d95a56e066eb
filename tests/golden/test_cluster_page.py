"""The commands of docs/cluster.md: in short form always, with the tables it shows in the full suite."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.test_readme import BLOCK

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def commands(text: str) -> list[str]:
    return [line[2:] for _, block in BLOCK.findall(text) for line in block.splitlines() if line[:2] == "$ "]


def shown(command: str) -> str:
    """What the command prints; status 1 where something does not fit."""
    words = shlex.split(command)
    assert words[:2] == ["windtunnel", "plan"]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "110", "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


def test_commands_are_understood_and_answer() -> None:
    found = commands(PAGE.read_text(encoding="utf-8"))
    assert len(found) == 4
    for command in found:
        short = command.replace("64,128,...,1024,10240", "256").replace("64,256,512,1024,10240", "256")
        assert "tok/s/GPU" in shown(short)


@pytest.mark.slow
def test_tables_are_what_the_commands_print() -> None:
    text = PAGE.read_text(encoding="utf-8")
    fresh = text
    for _, block in BLOCK.findall(text):
        command = commands(f"```console\n{block}```")[0]
        fresh = fresh.replace(block, f"$ {command}\n{shown(command)}\n")
    if os.environ.get("UPDATE_GOLDEN") == "1":
        PAGE.write_text(fresh, encoding="utf-8")
        return
    assert fresh == text
