"""`windtunnel validate` as a command: figures without data, groups, files written, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windtunnel.cli.main import main
from windtunnel.validation import page, shipped

NCCL = """gpu_system,nccl_version,collective,dtype,num_gpus,message_bytes,latency_seconds
h100_sxm,2.27,all_reduce,half,8,1073741824,4.5e-3
h100_sxm,2.27,all_reduce,half,8,2147483648,9e-3
<b>|x|</b>,2.27,all_reduce,half,8,1024,2e-5
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "collective_aiconfigurator_nccl.csv").write_text(NCCL, encoding="utf-8")
    return folder


def test_without_data_the_shipped_figures_and_where_they_come_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["validate"]) == 0
    text = capsys.readouterr().out
    accuracy = shipped.shipped()
    assert accuracy.data in text.splitlines()[0]
    assert accuracy.date in text.splitlines()[0]
    assert accuracy.rows > 100_000


def test_shipped_figures_survive_writing_and_reading() -> None:
    assert shipped.decode(shipped.encode(shipped.shipped())) == shipped.shipped()


def test_groups_as_json_with_refusals(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--data", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (file,) = found["files"]
    assert (file["seen"], file["predicted"], file["refused"], file["compared"]) == (3, 2, 1, 2)
    assert file["reasons"][0]["reason"].startswith("E934")
    assert file["median"] < 0.3
    assert file["p90_all"] > file["p90"]
    assert found["rows"] == 3


def test_rows_and_pages_are_written(data: Path, tmp_path: Path) -> None:
    rows, text, html = tmp_path / "rows.jsonl", tmp_path / "a.md", tmp_path / "a.html"
    options = ["--rows", str(rows), "--markdown", str(text), "--html", str(html)]
    assert main(["validate", "--data", str(data), *options]) == 0
    records = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    assert [record["row"] for record in records] == [0, 1, 2]
    assert set(records[0]) == {
        "file", "row", "row_id", "target", "unit", "prediction", "low", "high", "measured", "reason",
    }  # fmt: skip
    assert "`<b>\\|x\\|</b>`" in text.read_text("utf-8")
    assert "&lt;b&gt;" in html.read_text("utf-8")
    assert "<b>" not in html.read_text("utf-8")


def test_the_page_does_not_change_from_day_to_day(data: Path) -> None:
    accuracy = shipped.shipped()
    assert page.markdown(accuracy) == page.markdown(shipped.decode(shipped.encode(accuracy)))
    assert accuracy.date not in page.markdown(accuracy)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--data", "nowhere"], "E930"),
        (["--rows", "rows.jsonl"], "E937"),
        (["--data", "{data}", "--only", "kernel_*"], "E953"),
        (["--data", "{data}", "--rows", "no/such/folder/rows.jsonl"], "E925"),
    ],
)
def test_bad_input(options: list[str], code: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *(option.format(data=data) for option in options)]) == 2
    assert code in capsys.readouterr().err
