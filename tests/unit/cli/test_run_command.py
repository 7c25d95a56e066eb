"""Options of a recording may stand before or after it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from windtunnel.cli.main import main
from windtunnel.program import file
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import Origin, Program, SourceLine


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    square = TensorSpec("bfloat16", (4096, 4096), (4096, 1))
    spec = OpSpec("aten.mm.default", (square, square), (square,))
    program = Program(
        origin=Origin(script="train.py", chip="mtt-s5000"),
        specs=[spec],
        works=[work_of(spec)],
        sites=np.zeros((1, 5), dtype=np.int64),
        events=np.zeros(3, dtype=np.int64),
        storage_bytes=np.zeros(0, dtype=np.int64),
        storage_category=np.zeros(0, dtype=np.int64),
        scopes=[""],
        lines=[SourceLine("train.py", 1)],
    )
    path = tmp_path / "train.wt"
    file.save(program, path)
    return path


def test_the_same_answer_either_way(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    lines = (["--on", "h20", "--json", str(recording)], [str(recording), "--on", "h20", "--json"])
    for words in lines:
        assert main(["run", *words]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert answers[0]["chip"] == "h20"


def test_what_is_not_said_is_the_recordings(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recording), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chip"] == "mtt-s5000"


def test_a_scripts_own_arguments_are_refused(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recording), "--batch-size", "8"]) == 2
    assert "[E433]" in capsys.readouterr().err
