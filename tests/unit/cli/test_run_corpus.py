"""Bad scripts, bad lines, bad files: a code, a hint, the right exit status, and never a traceback of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windtunnel.cli.main import main

CORPUS = Path(__file__).parent / "corpus"

SCRIPTS: dict[str, tuple[list[str], str, int, str, str]] = {
    # options, script, exit status, code, words of the message or the hint
    "raises": ([], "raises", 2, "E440", "the script's own"),
    "raises before anything": ([], "raises_at_once", 2, "E440", "ValueError: bad config"),
    "missing import": ([], "imports_nothing_that_exists", 2, "E440", "a_package_that_nobody_has"),
    "numpy of a card tensor": ([], "reads_numpy", 2, "E440", "Tensor.cpu()"),
    "mixed devices": ([], "mixes_devices", 2, "E440", "same device"),
    "mixed dtypes": ([], "mixes_dtypes", 2, "E440", "same dtype"),
    "interrupt": ([], "interrupted", 130, "E442", "--steps 1"),
    "data-dependent loop": ([], "reads_an_integer", 2, "E401", "reads_an_integer.py:5"),
    "data-dependent, wrapped": ([], "branches_inside_a_library_call", 2, "E401", "--values"),
    "cpu only": ([], "stays_on_the_cpu", 2, "E441", '.to("cuda")'),
    "out of memory": ([], "too_big", 1, "E443", "--oom continue"),
    "out of memory on a smaller chip": (["--on", "rtx-4080"], "too_big", 1, "E443", "4080"),
    "strict: .cuda()": (["--strict"], "names_cuda", 2, "E410", "names_cuda.py:4"),
    "strict: is_available": (["--strict"], "asks_for_cuda", 2, "E410", "torch.cuda.is_available"),
    "strict: sensor": (["--strict", "--on", "h100-sxm"], "reads_a_sensor", 2, "E411", "placeholder"),
    "precision that the chip lacks": (["--on", "a100-80g"], "eight_bit_floats", 2, "E501", "fp8"),
}

LINES: dict[str, tuple[list[str], str, str]] = {
    "nothing": ([], "E430", "train.py"),
    "module without a name": (["-m"], "E430", "train.py"),
    "missing script": (["trian.py"], "E431", "-m MODULE"),
    "misspelled script": ([str(CORPUS / "train.py")], "E431", "did you mean"),
    "folder": ([str(CORPUS)], "E431", "name the script in it"),
    "no steps": (["--steps", "0", str(CORPUS / "trains.py")], "E432", "--steps 1"),
    "negative steps": (["--steps=-2", str(CORPUS / "trains.py")], "E432", "--steps 1"),
    "steps in words": (["--steps", "few", str(CORPUS / "trains.py")], "E991", "--steps"),
    "unknown chip": (["--on", "mtt-s500", str(CORPUS / "trains.py")], "E101", "did you mean `mtt-s5000`?"),
    "second chip unknown": (["--on", "h20,h101-sxm", str(CORPUS / "trains.py")], "E101", "h100-sxm"),
    "no chip": (["--on", "h20,", str(CORPUS / "trains.py")], "E220", "--on"),
    "no cards": (["--on", "h20:0", str(CORPUS / "trains.py")], "E220", "1 to"),
    "cards in words": (["--on", "h20:many", str(CORPUS / "trains.py")], "E220", "--on"),
    "bad override": (["--set", "tdp_w", str(CORPUS / "trains.py")], "E107", "--set"),
    "unknown option": (["--step", "3", str(CORPUS / "trains.py")], "E991", "did you mean `--steps`?"),
    "unknown routing": (["--routing", "even", str(CORPUS / "trains.py")], "E402", "power:1.2"),
    "unknown way to run out": (["--oom", "ignore", str(CORPUS / "trains.py")], "E991", "raise"),
    "no folder to save in": (["--out", "/nonexistent/x.wt", str(CORPUS / "trains.py")], "E435", "--out"),
    "missing recording": (["absent.wt"], "E900", "windtunnel run SCRIPT"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("options", "script", "status", "code", "words"), SCRIPTS.values(), ids=SCRIPTS)
def test_bad_scripts(
    options: list[str], script: str, status: int, code: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *options, str(CORPUS / f"{script}.py")]) == status
    err = capsys.readouterr().err
    assert f"[{code}]" in err
    assert "hint: " in err
    assert words in err
    assert "windtunnel/capture" not in err
    assert "windtunnel/cli" not in err


@pytest.mark.parametrize(("options", "script", "status", "code", "words"), SCRIPTS.values(), ids=SCRIPTS)
def test_bad_scripts_as_json(
    options: list[str], script: str, status: int, code: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--json", *options, str(CORPUS / f"{script}.py")]) == status
    answer = json.loads(capfd.readouterr().out)
    assert answer["schema"] == "windtunnel.run/1"
    assert answer["status"] == ("no" if status == 1 else "error")
    assert answer["error"]["code"] == code
    assert answer["error"]["hint"]


@pytest.mark.parametrize(("words", "code", "hint"), LINES.values(), ids=LINES)
def test_bad_lines(words: list[str], code: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"[{code}]" in err
    assert hint in err
    assert "Traceback" not in err


@pytest.mark.parametrize("options", [["--steps", "2"], ["--values"], ["--virtual-clock"], ["--out", "x.wt"]])
def test_a_recording_takes_no_options_of_recording(
    options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "x.wt").write_bytes(b"")
    assert main(["run", *options, "x.wt"]) == 2
    assert "[E433]" in capsys.readouterr().err


def test_a_script_that_is_no_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.py").write_text("def broken(:\n    pass\n")
    assert main(["run", "broken.py"]) == 2
    err = capsys.readouterr().err
    assert "SyntaxError" in err
    assert "[E440]" in err
    assert "windtunnel/" not in err


def damaged(content: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "foreign": (b"PK\x03\x04 not ours", "E901"),
        "empty": (b"", "E901"),
        "head only": (content[:20], "E902"),
        "cut short": (content[:-10], "E902"),
        "one bit": (content[:-5] + bytes([content[-5] ^ 1]) + content[-4:], "E903"),
        "newer": (content[:8] + b"\xff\x00" + content[10:], "E904"),
    }


def test_damaged_recordings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "-q", "--steps", "1", str(CORPUS / "trains.py")]) == 0
    content = (folder / "trains.wt").read_bytes()
    for name, (data, code) in damaged(content).items():
        (folder / "damaged.wt").write_bytes(data)
        capsys.readouterr()
        assert main(["run", "damaged.wt"]) == 2, name
        out, err = capsys.readouterr()
        assert (out, f"[{code}]" in err, "hint: " in err) == ("", True, True), (name, err)
