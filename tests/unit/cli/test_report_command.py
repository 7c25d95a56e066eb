"""`windtunnel report`: from programs and saved results to files, comparisons, limits and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import sample_results
from tests.unit.timeline.timeline_programs import add, make_program, mm
from windtunnel.cli.main import main
from windtunnel.program import file as program_file
from windtunnel.program.program import Phase
from windtunnel.results import file


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved training result, and beside it a slower one called ``after``."""
    file.save([sample_results.training()], tmp_path / "train.wtr")
    file.save([sample_results.other_chip()], tmp_path / "after.wtr")
    return tmp_path / "train.wtr"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["report", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_default_is_a_page_beside_the_file(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, saved)
    page = saved.with_suffix(".html")
    assert (status, err) == (0, "")
    assert out.startswith(f"wrote {page} (")
    assert "opens offline" in out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_only_what_is_asked_for_is_written(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = saved.parent / "elsewhere.json"
    status, out, _ = run(capsys, saved, "--perfetto", "--chrome", other, "--csv", "ops", "--csv", "memory")
    assert status == 0
    written = {path.name for path in saved.parent.iterdir()}
    assert written == {
        "train.wtr",
        "after.wtr",
        "train.pftrace",
        "elsewhere.json",
        "train-ops.csv",
        "train-memory.csv",
    }
    assert out.count("wrote ") == 4


def test_a_program_is_priced_on_chips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step.wt"
    issued = [(mm(4096, 4096, 4096), 0, Phase.FORWARD), (add(4096 * 4096), 0, Phase.BACKWARD)]
    program_file.save(make_program(issued), path)
    status, out, _ = run(
        capsys, path, "--on", "mtt-s5000,h100-sxm", "--html", tmp_path / "both.html", "--save"
    )
    assert status == 0
    assert "mtt-s5000" in out
    assert "h100-sxm" in out
    first, second = file.load(tmp_path / "step.wtr")
    assert (first.chip, second.chip) == ("mtt-s5000", "h100-sxm")
    assert first.command.startswith("windtunnel run --on mtt-s5000 ")


def test_two_files_show_what_changed(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, saved, saved.with_name("after.wtr"))
    assert (status, err) == (0, "")
    assert "Largest changes" in out
    assert "train" in out.splitlines()[2]
    assert saved.with_name("train-after.html").exists()


def test_a_passed_limit_is_exit_one(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = saved.with_name("after.wtr")
    status, _, err = run(capsys, saved, after, "--fail-if", "step_time>3%")
    assert status == 1
    assert "[E927]" in err
    assert "+37.00 %" in err
    assert run(capsys, after, saved, "--fail-if", "step_time>3%")[0] == 0


def test_json_is_one_object(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, saved, "--json")
    answer = json.loads(out)
    assert (status, err) == (0, "")
    assert answer["schema"] == "windtunnel.report/1"
    assert answer["status"] == "ok"
    assert answer["step_time_s"]["value"] == pytest.approx(sample_results.training().step_time_s.value)
    assert answer["written"] == []
    after = saved.with_name("after.wtr")
    status, out, _ = run(capsys, saved, after, "--json", "--fail-if", "step_time>3%", "--html")
    answer = json.loads(out)
    assert status == 1
    assert answer["status"] == "no"
    assert answer["error"]["code"] == "E927"
    assert [result["chip"] for result in answer["runs"]] == ["h100-sxm", "mtt-s5000"]
    assert answer["written"] == [str(saved.with_name("train-after.html"))]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["absent.wt"], "E900"),
        (["train.wtr", "--on", "h20"], "E928"),
        (["train.wtr", "train.wtr", "train.wtr"], "E928"),
        (["train.wtr", "two.wtr"], "E928"),
        (["train.wtr", "--fail-if", "step_time>3%"], "E926"),
        (["train.wtr", "after.wtr", "--fail-if", "speed>3"], "E926"),
        (["train.wtr", "--html", "absent/x.html"], "E925"),
        (["train.wtr", "--perfetto", "absent/x"], "E925"),
        (["train.wtr", "--csv", "nonsense"], "E991"),
        (["notes.txt"], "E901"),
        (["cut.wtr"], "E922"),
    ],
)
def test_bad_input_is_coded(
    words: list[str],
    code: str,
    saved: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(saved.parent)
    Path("notes.txt").write_text("hello")
    Path("cut.wtr").write_bytes(saved.read_bytes()[:-9])
    one = sample_results.decode()
    file.save([one, replace(one, chip="other")], "two.wtr")
    status, out, err = run(capsys, *words)
    assert status == 2
    assert out == ""
    assert f"[{code}]" in err
    assert "hint: " in err
    assert "Traceback" not in err
