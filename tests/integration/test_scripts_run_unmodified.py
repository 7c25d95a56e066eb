"""Scripts written for CUDA, in the manner of well-known public ones, run to their end on both vendors' cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"

RUNS: dict[str, tuple[str, str, int]] = {
    # script, kind of step, steps
    "gpt_classic": ("train", "done 2 True", 3),
    "vision_prefetch": ("train", "done", 4),
    "gan_classic": ("train", "done (16, 28, 28)", 3),
    "dqn": ("train", "done", 15),
    "lstm_language_model": ("train", "done", 3),
    "hf_trainer": ("train", "done 2", 2),
    "hf_accelerate": ("train", "done", 4),
    "hf_generate": ("decode", "done (2, 12) (2, 12)", 0),
}


def run(
    script: str, chip: str, folder: Path, *options: str
) -> tuple[dict[str, object], subprocess.CompletedProcess[str]]:
    """The JSON answer, and how the process ended. A process of its own: libraries keep device choices."""
    command = [sys.executable, "-c", "import sys; from windtunnel.cli.main import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "run", "--json", "--on", chip, *options, str(SCRIPTS / f"{script}.py")],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done


def _cases() -> list[Any]:
    """Every script on both cards; what imports transformers takes long on a busy machine."""
    return [
        pytest.param(script, chip, marks=pytest.mark.slow if script.startswith("hf_") else ())
        for script in RUNS
        for chip in ("mtt-s5000", "h100-sxm")
        if (script, chip) != ("hf_generate", "mtt-s5000")
    ] + [("hf_generate", "mtt-s5000")]


@pytest.mark.parametrize(("script", "chip"), _cases())
def test_a_script_runs_to_its_end(script: str, chip: str, tmp_path: Path) -> None:
    kind, last_words, steps = RUNS[script]
    answer, done = run(script, chip, tmp_path)
    assert done.returncode == 0, done.stderr
    assert last_words in done.stderr
    assert answer["status"] == "ok"
    assert answer["step_kind"] == kind
    recorded = answer["steps"]
    assert isinstance(recorded, list)
    if steps:
        assert len(recorded) == steps
    notices = answer["notices"]
    assert isinstance(notices, list)
    pretended = [notice for notice in notices if notice["kind"] == "pretended"]
    agnostic = script in ("lstm_language_model", "hf_trainer", "hf_accelerate")
    if chip == "h100-sxm":
        assert pretended == []
    elif not agnostic:
        assert any(f"{script}.py:" in notice["line"] for notice in pretended)


@pytest.mark.parametrize("script", ["gpt_classic", "gan_classic"])
def test_strict_refuses_the_first_cuda_name(script: str, tmp_path: Path) -> None:
    answer, done = run(script, "mtt-s5000", tmp_path, "--strict")
    assert done.returncode == 2
    error = answer["error"]
    assert isinstance(error, dict)
    assert error["code"] == "E410"
    assert f"{script}.py:" in error["values"]["line"]
