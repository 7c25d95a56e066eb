"""Published rows are rebuilt from their columns, or left out with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.validation.serving_rows import ServingRow, compare, median_errors

COLUMNS = (
    "row_id", "model", "gpu", "num_gpus", "framework", "precision", "tensor_parallel", "pipeline_parallel",
    "expert_parallel", "data_parallel_attention", "input_tokens", "output_tokens", "concurrency_or_batch",
    "phase", "output_tokens_per_s_per_gpu", "input_tokens_per_s_per_gpu", "tpot_seconds", "notes",
)  # fmt: skip
ROWS = (
    ("a", "Qwen3-8B", "H20 96GB", 1, "x", "FP8", 1, 1, "", "", 4096, 2048, 64, "decode", 2682, "", 0.02, ""),
    ("b", "Qwen3-8B", "H20 96GB", 1, "x", "FP8", 1, 1, "", "", 4096, 1, 4, "prefill", "", 15061, "", ""),
    ("c", "Qwen3-8B", "H20 96GB", 1, "x", "NVFP4", 1, 1, "", "", 4096, 1, 4, "prefill", "", 15061, "", ""),
    ("d", "Qwen3-8B", "TPU", 1, "x", "BF16", 1, 1, "", "", 4096, 1, 4, "prefill", "", 15061, "", ""),
    ("e", "Qwen3-8B", "H20 96GB", 2, "x", "BF16", 1, 2, "", "", 4096, 1, 4, "prefill", "", 15061, "", ""),
)


def write(folder: Path, name: str, rows: tuple[tuple[object, ...], ...]) -> None:
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_rows_are_rebuilt_or_left_out(tmp_path: Path) -> None:
    write(tmp_path, "infer_published_misc.csv", ROWS)
    for name in ("infer_trtllm_overview.csv", "infer_trtllm_online.csv"):
        write(tmp_path, name, (("z", "Other", "H20 96GB", *ROWS[0][3:]),))
    rows, out = compare(tmp_path)
    assert [row.row for row in rows] == ["a", "b"]
    assert {entry.row: entry.why for entry in out} == {
        "z": "model not in the catalogue",
        "c": "NVIDIA H20 96 GB has no FP4 matrix units",
        "d": "card not in the catalogue",
        "e": "pipeline parallel",
    }
    decode, prefill = rows
    # a figure per card of the right order: memory bound below, compute bound above
    assert 500 < decode.predicted < 6000
    assert 3000 < prefill.predicted < 2 * prefill.baseline


def test_medians() -> None:
    rows = [ServingRow(str(n), "k", "w", 100.0, 100.0 + n, 50.0, 90.0, 110.0) for n in (10, -20, 40)]
    assert median_errors(rows) == {"k, w": (3, pytest.approx(0.2), pytest.approx(0.5))}
