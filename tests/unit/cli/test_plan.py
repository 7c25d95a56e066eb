"""`windtunnel plan` from the command line: status, table, JSON, hints that can be pasted, bad input."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from tests.support import golden
from windtunnel.cli import plan_answer
from windtunnel.cli.main import main
from windtunnel.estimate import Estimate, Source
from windtunnel.results.plan_result import PlanResult, PlanRow
from windtunnel.results.run_result import StepParts


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status = main(["plan", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_best_layout(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "llama3-8b", "--on", "h100-sxm:8", "--global-batch", "64")
    assert status == 0
    assert found["fits"] is True
    steps = [layout["step_time_s"]["value"] for layout in found["layouts"]]
    assert steps == sorted(steps)
    assert found["step_time_s"]["value"] == steps[0]
    assert found["peak_reserved_bytes"]["high"] <= found["usable_bytes"]
    assert found["tensor"] * found["pipeline"] * found["context"] * found["data"] == 8


def test_nothing_fits_and_the_hint_does(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["llama3-70b", "--on", "mtt-s5000:8", "--global-batch", "64", "--tp", "8", "--zero1"]
    assert main(["plan", *words]) == 1
    text = capsys.readouterr().out
    assert "nothing fits" in text
    hint = next(line for line in text.splitlines() if line.startswith("hint: "))
    again = shlex.split(hint.removeprefix("hint: "))
    assert again[:2] == ["windtunnel", "plan"]
    assert "--zero1" in again
    status, found = answer(capsys, *again[2:])
    assert status == 0
    assert found["sharding"] == "zero1"
    assert found["tensor"] == 8
    status, found = answer(capsys, *words)
    assert (status, found["status"], found["fits"]) == (1, "no", False)
    assert found["least_bytes"]["high"] > found["usable_bytes"]


def row(cards: int, **changed: Any) -> PlanRow:
    step = Estimate(4.0, 3.6, 4.6, ((Source.CALIBRATED, 0.8), (Source.ASSUMED, 0.2)))
    rate = step.inverse(1024 * 4096 / cards)
    found = PlanRow(
        tensor=8,
        pipeline=4,
        chunks=2,
        context=1,
        expert=1,
        data=cards // 32,
        micro_batch=1,
        micro_batches=1024 * 32 // cards,
        schedule="interleaved",
        recompute="none",
        sharding="zero1",
        step_time_s=step,
        tokens_per_s_per_gpu=rate,
        tokens_per_s=rate.scaled(cards),
        mfu=rate.scaled(4.5e11 / 500e12),
        mfu_causal=rate.scaled(4.3e11 / 500e12),
        parts=StepParts(
            compute_s=3.0, exposed_comm_s=0.5, bubble_s=0.4, host_gap_s=0.0, optimizer_s=0.1, io_s=0.0
        ),
        peak_bytes=Estimate.within(40 * 2**30, 0.1, Source.ANALYTIC),
    )
    return replace(found, **changed)


def result(cards: int, *rows: PlanRow) -> PlanResult:
    return PlanResult(
        model="llama3-70b",
        chip="mtt-s5000",
        chip_title=f"{cards:,} × MTT S5000",
        cards=cards,
        global_batch=1024,
        sequence=4096,
        precision="bf16",
        optimizer="adamw",
        usable_bytes=79 * 2**30,
        mfu_peak="bf16 500 TFLOP/s",
        model_flops_per_token=4.5e11,
        considered=100,
        fitting=40 if rows else 0,
        priced=len(rows),
        unpriced_gain=0.02,
        rows=rows,
        least_bytes=None if rows else Estimate.within(120 * 2**30, 0.1, Source.ANALYTIC),
    )


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_transcript(columns: int) -> None:
    sharded = row(1024, sharding="fsdp", pipeline=1, chunks=1, recompute="full", expert=64, schedule="")
    found = result(1024, row(1024), sharded)
    few = result(8)
    lines = [
        *plan_answer.lines(found, 8, columns),
        *plan_answer.hints(found, "", columns),
        plan_answer.framework_options(sharded, found),
        *plan_answer.lines(few, 8, columns),
        *plan_answer.scaling_lines([few, result(64, row(64)), found], False, columns),
    ]
    assert all(cell_len(line) <= columns or line.startswith("as options") for line in lines)
    golden.check(f"cli/plan-{columns}.txt", "\n".join(lines) + "\n")


def test_scaling(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["llama3-70b", "--on", "mtt-s5000", "--scale", "8,64,128", "--global-batch", "128", "--tp", "8"]
    status, found = answer(capsys, *words)
    assert status == 1  # 8 cards are too few
    assert [run["cards"] for run in found["runs"]] == [8, 64, 128]
    assert [run.get("efficiency") for run in found["runs"]][:2] == [None, 1.0]
    assert main(["plan", *words]) == 1
    text = capsys.readouterr().out
    assert "Strong scaling" in text
    assert "8 cards: nothing fits" in text
    status, weak = answer(capsys, *words, "--weak")
    assert [run["global_batch"] for run in weak["runs"]] == [128, 1024, 2048]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("llama3-70b", "--tp", "0"), "E251"),
        (("llama3-70b", "--imbalance", "0.5"), "E251"),
        (("llama3-70b", "--imbalance", "nan"), "E251"),
        (("llama3-70b", "--weak"), "E251"),
        (("llama3-70b", "--on", "mtt-s5000:64,h100-sxm:64", "--scale", "8"), "E251"),
        (("llama3-70b", "--scale", "8,many"), "E240"),
        (("llama3-70b", "--on", "mtt-s5000:64", "--tp", "3"), "E250"),
        (("llama3-70b", "--on", "mtt-s5000:64", "--pp", "128"), "E250"),
        (("lama3-70b",), "E302"),
        (("llama3-70b", "--on", "nothing:8"), "E101"),
        (("llama3-70b", "--on", "a100-80g:8", "--precision", "fp8"), "E501"),
        (("llama3-70b", "--schedule", "clever"), "E991"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: str) -> None:
    status, found = answer(capsys, *words)
    assert (status, found["error"]["code"]) == (2, code)
    assert found["error"]["hint"]
