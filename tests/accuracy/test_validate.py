"""The whole of `validate` on the measurements beside the checkout: what it reaches, and that it only predicts.

The limits below are what the models reach, with a little room: a change that exceeds one belongs in the change log.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from windtunnel.validation.folder import predict_folder
from windtunnel.validation.groups import Group, by_file

DATA = Path(__file__).parents[3] / "shared" / "measurements" / "validation"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="measurements are not beside the checkout")


def groups(folder: Path, only: str) -> dict[str, Group]:
    answers = [part for _, found in predict_folder(folder, only) for part in found if len(part)]
    return {group.target: group for group in by_file(answers)}


@pytest.mark.parametrize(
    ("name", "target", "predicted", "median"),
    [
        ("collective_aiconfigurator_nccl", "latency_seconds", 0.99, 0.13),
        ("kernel_infersim_gemm", "latency_seconds", 0.99, 0.12),
        ("kernel_vidur_mlp_ops", "median_seconds", 0.99, 0.14),
        ("train_simumax_b200", "step_seconds", 0.95, 0.07),
        ("train_simumax_b200", "peak_memory_gib", 0.95, 0.03),
        ("train_torchtitan", "step_seconds", 0.95, 0.08),
    ],
)
def test_groups_stay_as_good_as_they_are(name: str, target: str, predicted: float, median: float) -> None:
    group = groups(DATA, name)[target]
    assert group.predicted >= predicted * group.seen
    assert group.median is not None
    assert group.median <= median
    assert group.baseline_median is None or group.median < group.baseline_median


@pytest.mark.parametrize(
    ("folder", "target", "median", "time_median", "p90"),
    [
        ("calibration", "dispatch_seconds", 0.04, 0.06, 0.10),
        ("calibration", "combine_seconds", 0.055, 0.06, 0.13),
        ("validation", "dispatch_seconds", 0.16, 0.10, 0.30),
        ("validation", "combine_seconds", 0.13, 0.12, 0.29),
    ],
)
def test_deepep_stays_as_good_as_it_is(
    folder: str, target: str, median: float, time_median: float, p90: float
) -> None:
    """H100, which is fitted, and Blackwell, which is not and starts its kernels later: medians there are of starts.

    One start for dispatch and combine without combine's walk lay 8 us above H100's dispatch (+24 % below 1 MiB) and
    by accident on Blackwell's, whose median was 8 % then; the bounds on the fitted chip keep that from coming back.
    """
    group = groups(DATA.parent / folder, "collective_aiconfigurator_deepep")[target]
    assert group.predicted == group.seen
    assert group.median is not None
    assert group.median <= median
    assert group.time_median is not None
    assert group.time_median <= time_median
    assert group.p90 is not None
    assert group.p90 <= p90


def test_blanking_the_measured_columns_changes_no_prediction(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    measured = {
        "latency_seconds", "published_mfu_fraction", "tflops", "step_seconds", "tokens_per_s_per_gpu",
        "model_tflops_per_gpu", "mfu_percent", "peak_memory_gib", "bus_bandwidth_gb_per_s", "algorithm_gb_per_s",
        "bus_gb_per_s", "median_seconds", "min_seconds", "max_seconds", "logical_bandwidth_gb_per_s", "value",
    }  # fmt: skip
    names = (
        "kernel_infersim_attention.csv", "kernel_flash_attention.csv", "kernel_fla_gb200.csv",
        "kernel_vidur_mlp_ops.parquet", "kernel_aic_mla.parquet", "collective_nccl_published.csv",
        "train_simumax_b200.csv", "s5000_measured.csv",
    )  # fmt: skip
    full, blank = tmp_path / "full", tmp_path / "blank"
    full.mkdir(), blank.mkdir()
    for name in names:
        shutil.copy(DATA / name, full / name)
        if name.endswith("parquet"):
            table = parquet.read_table(DATA / name)
            for number, column in enumerate(table.column_names):
                if column in measured:
                    table = table.set_column(number, column, pa.nulls(len(table), table[column].type))
            parquet.write_table(table, blank / name)
            continue
        with (DATA / name).open(encoding="utf-8", newline="") as source:
            rows = [{**row, **dict.fromkeys(measured & set(row), "")} for row in csv.DictReader(source)]
        with (blank / name).open("w", encoding="utf-8", newline="") as target:
            writer = csv.DictWriter(target, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    assert predictions(full) == predictions(blank)


def predictions(folder: Path) -> dict[tuple[str, str, int], tuple[float, float, float] | str]:
    found: dict[tuple[str, str, int], tuple[float, float, float] | str] = {}
    for _, parts in predict_folder(folder):
        for part in parts:
            numbers = zip(part.value.tolist(), part.low.tolist(), part.high.tolist(), strict=True)
            for row, values in zip(part.row.tolist(), numbers, strict=True):
                found[part.file, part.target, row] = part.reason or values
    return found
