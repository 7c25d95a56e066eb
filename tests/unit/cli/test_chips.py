"""`windtunnel chips`: transcripts at three widths, JSON, and a start without PyTorch."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from rich.cells import cell_len

from tests.support import golden
from windtunnel.cli.main import main
from windtunnel.specs.catalogue import chip, chip_names
from windtunnel.specs.files import UNITS
from windtunnel.specs.schema import Trust

TRANSCRIPTS = {
    "chips": ["chips"],
    "chips-list": ["chips", "list"],
    "chips-show-mtt-s5000": ["chips", "show", "mtt-s5000"],
    "chips-show-b200": ["chips", "show", "b200"],
    "chips-show-h20-override": ["chips", "show", "h20", "--set", "peak_flops.fp64=500G"],
}


def run(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int = 100
) -> tuple[int, str, str]:
    monkeypatch.setenv("COLUMNS", str(width))
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run(TRANSCRIPTS[name], capsys, monkeypatch, width)
    assert (status, err) == (0, "")
    assert max(cell_len(line) for line in out.splitlines()) <= width
    golden.check(
        f"cli/{name}-{width}.txt", re.sub(r"ASSUMED    20\d\d-\d\d-\d\d\n", "ASSUMED    TODAY\n", out)
    )


@pytest.mark.parametrize("width", [40, 80, 100, 140, 300])
def test_numbers_are_whole_at_any_width(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run(["chips"], capsys, monkeypatch, width)
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith(" mtt-s5000 ")}
    assert {"500", "79.9", "1,600"} <= set(rows["mtt-s5000"])


def test_list_in_json_holds_every_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run(["chips", "--json"], capsys, monkeypatch)
    answer = json.loads(out)
    assert (status, err, answer["status"], answer["schema"]) == (0, "", "ok", "windtunnel.chips/1")
    assert [entry["name"] for entry in answer["chips"]] == chip_names()
    for entry in answer["chips"]:
        assert set(entry["quantities"]) == set(UNITS)
        for quantity in [*entry["quantities"].values(), *entry["peak_flops"].values()]:
            assert all(quantity[key] for key in ("unit", "source", "date", "trust"))


def test_show_in_json_is_exact(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run(["chips", "show", "s5000", "--json", "--set", "tdp_w=700"], capsys, monkeypatch)
    shown = json.loads(out)["chip"]
    assert shown["quantities"]["memory_bytes"]["value"] == chip("mtt-s5000").memory_bytes.value
    assert shown["quantities"]["tdp_w"]["source"] == "command line"
    assert shown["overrides"] == ["tdp_w=700"]


@pytest.mark.parametrize("name", chip_names())
def test_show_prints_every_origin_and_marks_assumptions(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = chip(name)
    _, out, _ = run(["chips", "show", name], capsys, monkeypatch, 4000)
    shown = [getattr(found, key) for key in UNITS] + list(found.peak_flops.values())
    assert all(quantity.source in out and quantity.note in out for quantity in shown)
    assumed = [quantity for quantity in shown if quantity.trust is Trust.ASSUMED]
    assert len(re.findall(r"^   \S.* ASSUMED ", out, re.MULTILINE)) == len(assumed)


def test_chips_start_without_pytorch_or_numpy() -> None:
    code = (
        "import sys; from windtunnel.cli.main import main; status = main(['chips']);"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
