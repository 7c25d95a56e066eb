"""Explanations agree with the predictions they explain, and name what really moves them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.timeline.timeline_programs import add, make_program, mm
from tests.unit.validation.test_validate import GEMM, NCCL, TRAINING, write
from windtunnel.cli.main import main
from windtunnel.cost.model import CostModel
from windtunnel.network.collective import Collective
from windtunnel.network.model import NetworkModel
from windtunnel.program import file as program_file
from windtunnel.program.program import Phase
from windtunnel.report import page
from windtunnel.specs.catalogue import chip
from windtunnel.specs.targets import cluster_of
from windtunnel.timeline.predict import predict
from windtunnel.timeline.sustained import sustained
from windtunnel.units import GIB
from windtunnel.validation.explain.asked import KINDS, batch_asked
from windtunnel.validation.explain.beside import beside
from windtunnel.validation.explain.collective import explain_collective
from windtunnel.validation.explain.kernel import explain_kernel, quantities, raised
from windtunnel.validation.explain.memory import explain_memory
from windtunnel.validation.explain.points import nearest, points_of_folder, shipped_points, thinned
from windtunnel.validation.explain.row import explain_row
from windtunnel.validation.measured_files import read_measured
from windtunnel.validation.predict_training import TrainingRows

SHAPES = {
    "m": 4096.0, "n": 2048.0, "k": 8192.0, "heads": 32.0, "q_len": 2048.0, "kv_len": 4096.0, "head_dim": 128.0,
    "rows": 8192.0, "columns": 4096.0, "elements": 1e8, "tokens": 4096.0, "experts": 16.0,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("card", ["h100-sxm", "mtt-s5000", "l40s"])
def test_every_kernel_is_explained_as_it_is_priced(name: str, card: str) -> None:
    given = {dim: SHAPES[dim] for dim in KINDS[name].required}
    batch = batch_asked(name, given, "bf16")
    why = explain_kernel(batch, chip(card), shipped_points())
    prices = CostModel(chip(card)).price(batch)
    assert why.seconds == prices.seconds[0] > 0
    assert (why.low_s, why.high_s) == (prices.low_s[0], prices.high_s[0])
    assert why.formula == prices.formula
    assert not why.dims or set(given) <= {{"qk_dim": "head_dim"}.get(dim, dim) for dim, _ in why.dims}
    assert why.inputs, "something on the data sheet must matter"


def test_inputs_are_those_that_move_the_time() -> None:
    batch = batch_asked("gemm", {"m": 8192.0, "n": 8192.0, "k": 8192.0}, "bf16")
    card = chip("h100-sxm")
    why = explain_kernel(batch, card, ())
    moves = {item.name: item.moves for item in why.inputs}
    assert moves["peak_flops.bf16"] < -0.5
    assert abs(moves.get("memory_bytes_per_s", 0.0)) < 0.2
    assert "nic_bytes_per_s" not in moves
    for name, quantity in quantities(card):
        changed = CostModel(raised(card, name, quantity)).price(batch).seconds[0] / why.seconds - 1
        assert changed * 100 == pytest.approx(moves.get(name, 0.0), abs=0.011)


def test_the_range_says_what_lies_outside() -> None:
    why = explain_kernel(
        batch_asked("gemm", {"m": 4096.0, "n": 4096.0, "k": 1e6}, "bf16"), chip("h100-sxm"), ()
    )
    assert {item.name: item.inside for item in why.ranges}["k"] is False
    assert str(why.source) == "analytic"


@pytest.mark.parametrize(("card", "cards"), [("mtt-s5000", 2), ("mtt-s5000", 8), ("h100-sxm", 32)])
def test_a_collective_is_explained_as_it_is_priced(card: str, cards: int) -> None:
    cluster = cluster_of(card, cards)
    why = explain_collective(Collective.ALL_REDUCE, 2.0**26, cluster, shipped_points())
    time = NetworkModel(cluster).collective_time(Collective.ALL_REDUCE, 2.0**26, tuple(range(cards)))
    assert (why.seconds, why.low_s, why.high_s) == (time.seconds, time.low_s, time.high_s)
    named = {item.name for item in why.inputs}
    assert ("nic_bytes_per_s" in named) == (cards > 8)
    assert why.near is not None
    assert why.near.point.chip == card
    sizes = [dict(p.dims)["bytes"] for p in shipped_points() if (p.family, p.chip) == ("all_reduce", card)]
    assert {name: (low, high) for name, low, high in why.ranges}["bytes"] == (min(sizes), max(sizes))


MEMORY = """row_id,source_id,model,task,gpu,num_gpus,sequence_length_tokens,global_batch_size_sequences,\
micro_batch_size_sequences,tensor_parallel,pipeline_parallel,precision,recompute,framework,peak_memory_gib
a,titan,Llama-3.1 8B,pretrain,H100,8,8192,8,1,{tensor},1,BF16,none,{framework},
"""


@pytest.mark.parametrize(
    ("framework", "tensor", "reserved"), [("TorchTitan torch.compile", 1, True), ("Megatron-LM", 2, False)]
)
def test_a_peak_of_memory_is_the_sum_of_its_parts(
    tmp_path: Path, framework: str, tensor: int, reserved: bool
) -> None:
    path = tmp_path / "train_torchtitan.csv"
    path.write_text(MEMORY.format(framework=framework, tensor=tensor).replace("\\\n", ""))
    table = read_measured(path).table
    why = explain_memory(table)
    assert why is not None
    assert why.reserved is reserved
    assert sum(part.nbytes for part in why.parts) == pytest.approx(why.nbytes, rel=1e-6)
    found = {part.target: float(part.value[0]) for part in TrainingRows().predict(table)}
    assert why.nbytes / GIB == pytest.approx(found["peak_memory_gib"])
    row = explain_row(tmp_path, "train_torchtitan.csv:a", (), top=1)
    assert row.memory == why


def test_the_nearest_point_is_the_nearest(tmp_path: Path) -> None:
    points = points_of_folder(write(tmp_path, kernel_aic_gemm=GEMM.format(1e-3, 2e-3)))
    assert sorted(dict(point.dims)["m"] for point in points) == [4096.0, 8192.0]
    near = nearest(
        points,
        family="gemm",
        chips=("h100-sxm",),
        path="bf16",
        dims=(("m", 7000.0), ("n", 4096.0), ("k", 4096.0)),
    )
    assert near is not None
    assert dict(near.point.dims)["m"] == 8192.0
    assert near.factor == pytest.approx(8192 / 7000)
    assert (near.point.seconds, near.point.row, near.same_path) == (2e-3, 1, True)
    assert nearest(points, family="gemm", chips=("h20",), path="bf16", dims=()) is None


def test_shipped_points_are_facts_with_a_place() -> None:
    points = shipped_points()
    assert len(points) > 1000
    assert {"h100-sxm", "a100-80g", "mtt-s5000"} <= {point.chip for point in points}
    assert all(point.seconds > 0 and point.file and point.row >= 0 for point in points)
    assert thinned(points, 4) != list(points)
    assert len(thinned(points, 1)) == len({point.key for point in points})


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["explain", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_recording_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = make_program([(mm(4096, 4096, 4096), 0, Phase.FORWARD), (add(4096), 0, Phase.FORWARD)])
    program_file.save(program, tmp_path / "some.wt")
    status, out, _ = run(capsys, tmp_path / "some.wt", "--on", "h100-sxm", "--json")
    assert status == 0
    step = json.loads(out)["step"]
    names = [item["name"] for item in step["operations"]]
    assert names[0].startswith("aten.mm")
    assert sum(item["share"] for item in step["operations"]) == pytest.approx(1.0)
    alone, in_step = step["operations"][0]["why"]["seconds"], step["operations"][0]["seconds"]
    assert in_step == pytest.approx(
        alone * sustained().slowdown(chip("h100-sxm"))
    )  # a training step, under power
    assert "700 W holds the clock" in step["notes"][0]
    status, out, _ = run(capsys, tmp_path / "some.wt", "--on", "h100-sxm", "--op", "add")
    assert status == 0
    assert "aten.add" in out
    assert "aten.mm" not in out
    status, _, err = run(capsys, tmp_path / "some.wt", "--op", "conv")
    assert status == 2
    assert "E960" in err


def test_rows_are_explained_as_validate_predicts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(
        tmp_path,
        kernel_aic_gemm=GEMM.format(1e-3, 2e-3),
        collective_aiconfigurator_nccl=NCCL.format(1e-3, 1e-5),
        train_nemo_pages=TRAINING.format(10000, 1, 40, 10000, 1),
    )
    main(["validate", "--data", str(folder), "--rows", str(tmp_path / "rows.jsonl"), "--json"])
    capsys.readouterr()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for name, number in (
        ("kernel_aic_gemm", 0),
        ("collective_aiconfigurator_nccl", 1),
        ("train_nemo_pages", 0),
    ):
        status, out, _ = run(capsys, "--data", folder, "--row", f"{name}.csv:{number}", "--json")
        assert status == 0
        found = json.loads(out)["row"]
        expected = {r["target"]: r["prediction"] for r in rows if (r["file"], r["row"]) == (name, number)}
        assert {a["target"]: a["prediction"] for a in found["answers"]} == expected
        assert found["parts"] or found["step"]["operations"]
    assert json.loads(out)["row"]["step"]["seconds"] == expected["step_seconds"]
    status, out, _ = run(capsys, "--data", folder, "--row", "train_nemo_pages.csv:a-2")
    assert status == 0
    assert "not predicted" in out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("", "E960"), ("gem", "E960"), ("gemm --m 8", "E961"), ("gemm --m 8 --n 8 --k 0", "E961"),
        ("softmax --rows 8 --columns 8 --m 3", "E961"), ("gemm --m 8 --n 8 --k 8 --dtype posit8", "E962"),
        ("all_reduce --on mtt-s5000:8", "E961"), ("all_reduce --bytes 1MiB", "E961"),
        ("all_reduce --bytes much --on mtt-s5000:8", "E961"), ("gemm --m 8 --n 8 --k 8 --on h9000", "E101"),
        ("--row train.csv:0", "E963"), ("--data /nowhere --row train.csv:0", "E930"), ("gemm --top 0", "E961"),
    ],
)  # fmt: skip
def test_bad_questions_are_coded(words: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, *words.split())
    assert (status, out) == (2, "")
    assert f"[{code}]" in err
    assert "hint:" in err
    assert "Traceback" not in err


def test_rows_that_are_not_there_are_coded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, kernel_aic_gemm=GEMM.format(1e-3, 2e-3))
    for name in ("kernel_aic_gemm.csv:99", "kernel_aic_gemm.csv", "kernel_aic_gemm.csv:a-0"):
        status, _, err = run(capsys, "--data", folder, "--row", name)
        assert status == 2
        assert "[E963]" in err


def test_the_report_shows_the_nearest_measurements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = make_program([(mm(4096, 4096, 4096), 0, Phase.FORWARD), (add(4096), 0, Phase.FORWARD)])
    rows = beside(program, chip("h100-sxm"), shipped_points())
    assert len(rows) == 1
    assert rows[0].what.startswith("gemm bf16")
    assert rows[0].predicted == pytest.approx(rows[0].measured, rel=0.5)
    program_file.save(program, tmp_path / "some.wt")
    out = tmp_path / "some.html"
    assert main(["report", str(tmp_path / "some.wt"), "--on", "h100-sxm", "--html", str(out)]) == 0
    capsys.readouterr()
    text = out.read_text(encoding="utf-8")
    assert "Nearest public measurements" in text
    assert rows[0].where.split(",")[1].strip() in text


def test_trust_shares_are_those_of_the_step() -> None:
    issued = [(mm(8192, 8192, 8192), 0, Phase.FORWARD), (add(1 << 24), 0, Phase.FORWARD)]
    result = predict(make_program(issued), chip("h100-sxm"))
    view = page.view(result)
    assert sum(item.share for item in view.sources) == pytest.approx(1.0)
    shares = {item.source: item.share for item in view.sources}
    for source in {row.source for row in result.ops}:
        assert shares[str(source)] > 0
