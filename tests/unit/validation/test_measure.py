"""The collector: its tables are read back, nothing is measured twice, and on the virtual card measured is predicted."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from windtunnel.cli.main import main
from windtunnel.errors import WindtunnelError
from windtunnel.validation.measure.tables import GrowingTable
from windtunnel.validation.measure.timer import Timer

GROUPED_QUERY_SUMS = 0.10
"""What PyTorch's sums over shared key heads add to attention's backward kernels in small shapes."""


def rows_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What validate says about every row of the folder."""
    assert main(["validate", "--data", str(folder), "--rows", str(folder / "rows.jsonl"), "--json"]) == 0
    capsys.readouterr()
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_on_the_virtual_card_measured_is_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["measure", "--on", "mtt-s5000", "--grid", "quick", "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["gpu"] == "mtt-s5000"
    assert [item["case"] for item in said["skipped"]] == ["collectives"]
    rows = rows_of(tmp_path, capsys)
    assert {str(row["file"]) for row in rows} == set(said["measured"])
    assert {"step_torch", "kernel_aic_gemm", "kernel_torch_ops", "kernel_flash_attention"} <= set(
        said["measured"]
    )
    measured = [row for row in rows if row["measured"] is not None]
    assert len(measured) >= sum(said["measured"].values())
    for row in measured:
        within = GROUPED_QUERY_SUMS if row["file"] == "kernel_flash_attention" else 0.01
        assert row["prediction"] == pytest.approx(row["measured"], rel=within), row
        assert row["low"] <= row["measured"] * 1.01
    assert {row["target"] for row in measured} >= {"step_seconds", "backward_seconds", "peak_reserved_gib"}
    # again: everything is there
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["measured"], again["kept"]) == ({}, sum(said["measured"].values()))


def test_collectives_of_a_virtual_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main([
        "run", "--on", "mtt-s5000:8", "--virtual-clock", "-q", "--out", str(tmp_path / "x.wt"), "-m", "windtunnel",
        "measure", "--only", "collectives", "--grid", "quick", "--out", str(tmp_path / "measured"),
    ])  # fmt: skip
    capsys.readouterr()
    assert status == 0
    rows = rows_of(tmp_path / "measured", capsys)
    assert len(rows) == 10
    for row in rows:
        assert row["prediction"] == pytest.approx(row["measured"], rel=0.01), row


def test_the_cpu_is_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["measure", "--device", "cpu", "--grid", "quick", "--only", "ops", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "rows measured" in capsys.readouterr().out
    rows = rows_of(tmp_path, capsys)
    assert rows
    assert all("E934" in str(row["reason"]) for row in rows)  # the catalogue has no such card
    # cut the file in the middle of its last line, as an interruption does
    table = tmp_path / "kernel_torch_ops.csv"
    whole = table.read_text()
    table.write_text(whole[:-7])
    assert main(words) == 0
    assert "1 rows measured" in capsys.readouterr().out
    with table.open() as stream:
        assert len(list(csv.reader(stream))) == len(whole.splitlines())


def test_a_table_grows_and_keeps_to_its_columns(tmp_path: Path) -> None:
    table = GrowingTable(tmp_path, "kernel_x", ("gpu", "m"), ("latency_seconds",))
    table.add({"gpu": "a", "m": "1"}, {"latency_seconds": 1e-6})
    table.add({"gpu": "a", "m": "2"}, {"latency_seconds": None})
    again = GrowingTable(tmp_path, "kernel_x", ("gpu", "m"), ("latency_seconds",))
    assert again.has({"gpu": "a", "m": "1"})
    assert again.has({"gpu": "a", "m": "2"})
    assert not again.has({"gpu": "b", "m": "1"})
    assert again.path.read_text().splitlines() == ["gpu,m,latency_seconds", "a,1,1e-06", "a,2,"]
    with pytest.raises(WindtunnelError, match="E965"):
        GrowingTable(tmp_path, "kernel_x", ("gpu", "n"), ("latency_seconds",))
    with pytest.raises(WindtunnelError, match="E964"):
        GrowingTable(tmp_path / "nowhere", "kernel_x", ("gpu",), ("latency_seconds",))


def test_devices_that_are_not_there_are_coded(tmp_path: Path) -> None:
    """In a process of its own: a virtual card that another test used stays registered in this one."""
    for name in ("cuda", "musa"):
        words = [
            sys.executable,
            "-m",
            "windtunnel",
            "measure",
            "--device",
            name,
            "--out",
            str(tmp_path / "x"),
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "[E966]" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_series_is_timed_without_what_it_costs_once() -> None:
    """A fake clock: 100 µs for a series, 10 µs for a call."""
    calls = []

    class Fake(Timer):
        def once_s(self, work: object) -> float:
            before = len(calls)
            work()  # type: ignore[operator]
            return 100e-6 + 10e-6 * (len(calls) - before)

    seconds = Fake(torch.device("cpu")).kernel_s([lambda: calls.append(0)])
    assert seconds == pytest.approx(10e-6)


def test_work_that_takes_long_is_timed_twice_and_not_in_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windtunnel.validation.measure.timer.LONG_S", 1e-3)
    calls: list[int] = []

    def work(seconds: float) -> None:
        calls.append(1)
        time.sleep(seconds)

    timer = Timer(torch.device("cpu"))
    assert timer.kernel_s([lambda: work(2e-3)]) >= 2e-3
    assert len(calls) == 3  # once to warm up
    calls.clear()
    timer.kernel_s([lambda: work(1e-5)])
    assert len(calls) > 20
