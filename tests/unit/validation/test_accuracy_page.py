"""What stands beside our errors: the nearest shape, the calibration tables, other simulators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.unit.validation.test_validate import GEMM, NCCL, write
from windtunnel.cli.main import main
from windtunnel.validation.folder import predict_folder
from windtunnel.validation.nearest import Nearest
from windtunnel.validation.peers import beside_peers
from windtunnel.validation.rows_file import Answers

VTRAIN = """setup,params_billion,gpus,global_batch,micro_batch,hidden,heads,layers,seq_len,tp,dp,pp,iteration_ms
multi,3.6,64,512,4,3072,32,30,2048,1,64,1,{0}
multi,3.6,64,512,8,3072,32,30,2048,2,32,1,{1}
multi,3.6,64,512,8,3072,32,30,2048,4,16,1,{2}
"""


def test_the_nearest_shape_answers_with_its_time(tmp_path: Path) -> None:
    tables = {
        "kernel_aic_gemm": GEMM.format(1e-3, 2e-3),
        "collective_aiconfigurator_nccl": NCCL.format(3e-3, 4e-5),
    }
    fitted = write(tmp_path / "c", **tables)
    asked = write(
        tmp_path / "v",
        kernel_aic_gemm=GEMM.format(1, 1).replace("8192,4096,4096", "7000,4096,4096").replace("h100_sxm", "h200_sxm"),
        collective_aiconfigurator_nccl=NCCL.format(1, 1).replace("1073741824", "900000000"),
    )  # fmt: skip
    found = [
        part
        for _, parts in predict_folder(asked, nearest=Nearest(fitted))
        for part in parts
        if not part.reason
    ]
    gemms = [part for part in found if part.file == "kernel_aic_gemm"]
    assert np.concatenate([part.nearest for part in gemms]).tolist() == [
        1e-3,
        2e-3,
    ]  # of another chip, unscaled
    large = [part for part in found if part.family.endswith("from 1 MiB")]
    assert large[0].nearest.tolist() == [3e-3]


def test_pages_hold_baselines_and_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "c", kernel_aic_gemm=GEMM.format(1.5e-4, 3e-4))
    words = ["validate", "--data", str(folder), "--calibration", str(folder)]
    page, text = tmp_path / "a.html", tmp_path / "a.md"
    assert main([*words, "--html", str(page), "--markdown", str(text), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["files"][0]["nearest_median"] == 0.0  # the same tables
    assert data["calibration"][0]["median"] == data["files"][0]["median"]
    gemm = next(fit for fit in data["left_out"] if fit["library"] == "trtllm" and fit["path"] == "fp8")
    assert gemm["chip"] == "h100-sxm"
    assert gemm["median"] < 0.06 < gemm["nearest_median"]
    assert gemm["met"]
    for written in (page.read_text(), text.read_text()):
        assert "Calibration tables" in written
        assert "Shapes left out" in written
        assert "nearest" in written
    assert main(words) == 0
    assert "calibration tables" in capsys.readouterr().out
    assert main(["validate", "--calibration", str(folder)]) == 2
    assert "E937" in capsys.readouterr().err


def answers(predicted: list[float], measured: list[float]) -> Answers:
    n = len(predicted)
    nothing = np.full(n, np.nan)
    return Answers(
        "vtrain_a100_measured", "training step", "", "a100-80g", "iteration_ms", "ms", np.arange(n), ("",) * n,
        np.array(predicted), nothing, nothing, np.array(measured), nothing, np.ones(n, dtype=np.bool_),
    )  # fmt: skip


def test_regret_is_what_the_chosen_layout_costs(tmp_path: Path) -> None:
    measured = [100.0, 80.0, 120.0]
    folder = write(tmp_path, vtrain_a100_measured=VTRAIN.format(*measured))
    good = beside_peers(folder, [answers([90, 70, 110], measured)], "here")
    bad = beside_peers(folder, [answers([60, 70, 110], measured)], "here")
    regrets = [[peer.ours for peer in peers if "regret" in peer.what] for peers in (good, bad)]
    assert regrets[0] == [0.0, 0.0]
    assert regrets[1] == pytest.approx([0.25, 0.25])
    errors = [peer for peer in good if peer.what == "step time, several nodes"]
    assert errors[0].ours == pytest.approx(np.mean([0.1, 0.125, 10 / 120]))
    assert {peer.who for peer in errors} == {
        "vTrain (its paper)",
        "Calculon as shipped",
        "SimuMax, starter values",
    }
