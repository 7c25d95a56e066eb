"""The edit frees: code that --strict refuses on a Moore Threads card runs there after `windtunnel port --diff`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "scripts"


def _windtunnel(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "windtunnel", *words]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("script", "cards"), [("gpt_classic.py", ""), ("ddp.py", ":8")])
def test_strict_runs_after_the_patch(script: str, cards: str, tmp_path: Path) -> None:
    shutil.copy(SCRIPTS / script, tmp_path)
    run = ("-q", "run", "--strict", "--on", f"mtt-s5000{cards}", script)
    refused = _windtunnel(*run, cwd=tmp_path)
    assert refused.returncode == 2
    assert "E410" in refused.stderr
    patch = _windtunnel("port", ".", "--diff", cwd=tmp_path)
    assert patch.returncode == 0
    subprocess.run(["patch", "-s", "-p1"], cwd=tmp_path, input=patch.stdout, text=True, check=True)
    assert _windtunnel(*run, cwd=tmp_path).returncode == 0
    assert not _windtunnel("port", ".", "--diff", cwd=tmp_path).stdout


def test_the_object_and_the_status(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import apex\n")
    answer = _windtunnel("port", "a.py", "--json", cwd=tmp_path)
    assert answer.returncode == 1
    data = json.loads(answer.stdout)
    assert data["status"] == "no"
    assert data["counts"] == {"redirected": 0, "edit": 0, "port": 0, "tied": 1}
    assert data["places"][0]["what"] == "import apex"
