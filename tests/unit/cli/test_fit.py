"""`windtunnel fit` from the command line: status, JSON, hints that can be pasted, bad input."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.support import golden
from windtunnel.cli.main import main
from windtunnel.specs.model_catalogue import MODELS


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    status = main(["fit", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_fits(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "llama3-8b", "--on", "h100-sxm")
    assert status == 0
    assert found["fits"] is True
    assert found["status"] == "ok"
    assert found["parameters"] == 8_030_261_248
    assert found["largest_batch"] >= 1  # type: ignore[operator]


def test_does_not_fit_and_the_hint_does(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "deepseek-v3-671b", "--precision", "fp8", "--on", "mtt-s5000:8")
    assert status == 1
    assert found["fits"] is False
    assert found["status"] == "no"
    hints = found["hints"]
    assert isinstance(hints, list)
    for hint in hints:
        words = shlex.split(hint)
        assert words[:2] == ["windtunnel", "fit"]
        status, found = answer(capsys, *words[2:])
        assert (status, found["fits"]) == (0, True)


def test_training_hints_hold_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = "qwen3-vl-8b --mode train --batch 4 --sequence 16384 --zero1 --on mtt-s5000:8"
    status, found = answer(capsys, *words.split())
    assert status == 1
    for hint in found["hints"]:  # type: ignore[attr-defined]
        status, changed = answer(capsys, *shlex.split(hint)[2:])
        assert (status, changed["fits"]) == (0, True)


def test_the_table_names_parts_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "llama3-70b", "--on", "mtt-s5000:8", "--batch", "8"]) == 0
    text = capsys.readouterr().out
    for word in ("weights", "KV cache", "total", "fits:", "usable"):
        assert word in text


TRANSCRIPTS = {
    "fit-serving": "llama3-70b --on mtt-s5000:8 --precision fp8 --batch 32 --context 8192",
    "fit-training-no": "qwen3-vl-8b --mode train --on mtt-s5000:8 --zero1 --batch 2 --sequence 16384",
}


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    main(["fit", *TRANSCRIPTS[name].split()])
    text = capsys.readouterr().out
    assert all(cell_len(line) <= width for line in text.splitlines() if not line.startswith("hint"))
    golden.check(f"cli/{name}-{width}.txt", text)


def test_several_chips(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "llama3-70b", "--on", "h100-sxm,b200")
    assert status == 1
    assert [run["fits"] for run in found["runs"]] == [False, True]  # type: ignore[attr-defined]


def test_a_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = next(e for e in json.loads((MODELS / "llama.json").read_text()) if e["name"] == "llama3-8b")
    (tmp_path / "config.json").write_text(json.dumps(entry["config"]))
    for word in (str(tmp_path), str(tmp_path / "config.json")):
        status, found = answer(capsys, word, "--on", "h100-sxm")
        assert (status, found["parameters"]) == (0, 8_030_261_248)


@pytest.mark.filterwarnings("ignore")
def test_a_class_of_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("LlamaConfig", "llama"):
        _, found = answer(capsys, word, "--on", "h100-sxm")
        assert found["parameters"] == 6_738_415_616


def test_the_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--models"]) == 0
    assert "deepseek-v3-671b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("", "E305"),
        ("no-such-model", "E302"),
        ("llama3-8b --batch 0", "E305"),
        ("llama3-8b --precision bf17", "E305"),
        ("llama3-8b --tp 3 --on h100-sxm:8", "E305"),
        ("missing/config.json", "E306"),
        ("nemotron3-ultra-550b-a55b", "E304"),
    ],
)
def test_bad_input(words: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, *words.split())
    assert status == 2
    assert found["error"]["code"] == code  # type: ignore[index]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": "nonesuch"}', '{"model_type": "llama"}'])
def test_bad_configurations(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    status, found = answer(capsys, str(path))
    assert status == 2
    assert found["error"]["code"] in {"E303", "E304", "E306"}  # type: ignore[index]
