"""Kernels that were not fitted, against their measured times, and always against the roofline.

The rows of ``validation/`` come from libraries and chips that the calibration tables lack: B200 by two more
libraries, L40S and H20 as whole chips. The bounds are what the models reach, rounded up; a change of them is a
change of the models and belongs in the same commit.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from windtunnel.specs.catalogue import chip
from windtunnel.validation.kernel_scores import Predicted, groups, predict_folder

MEASUREMENTS = Path(__file__).parents[3] / "shared" / "measurements"

pytestmark = pytest.mark.skipif(not MEASUREMENTS.is_dir(), reason="measurements are not beside the checkout")


@cache
def predicted(table: str) -> tuple[Predicted, ...]:
    pytest.importorskip("pyarrow")
    return tuple(predict_folder(MEASUREMENTS / "validation", cache(chip), (table,)))


@pytest.mark.parametrize(
    ("table", "chip_name", "path", "bound"),
    [
        ("kernel_aic_gemm", "b200", "gemm/bf16", 0.08),
        # large products under vLLM, whose fit lets the clock take what K beyond 50,000 costs
        pytest.param("kernel_aic_gemm", "b200", "gemm/fp8", 0.16, marks=pytest.mark.xfail(reason="0.18 now")),
        ("kernel_aic_gemm", "b200", "gemm/fp8", 0.19),
        ("kernel_aic_gemm", "l40s", "gemm/bf16", 0.12),
        ("kernel_infersim_gemm", "h20", "gemm/fp8/block128", 0.08),
        ("kernel_infersim_attention", "h20", "attention/bf16", 0.06),
        ("kernel_infersim_attention", "h20", "decode_attention/bf16", 0.12),
        ("kernel_aic_generation_attention", "b200", "decode_attention/bf16", 0.10),
    ],
)
def test_transfer_to_what_was_not_fitted(table: str, chip_name: str, path: str, bound: float) -> None:
    scored = {key: (mine, roof) for key, mine, roof in groups(predicted(table), "chip", "path")}
    mine, roof = scored[(chip_name, path)]
    assert mine.time_median < bound
    assert mine.time_median < roof.time_median or roof.time_median < 0.1


def test_nearly_every_row_of_a_known_chip_is_predicted() -> None:
    rows = [
        item for table in ("kernel_aic_gemm", "kernel_aic_generation_attention") for item in predicted(table)
    ]
    answered = sum(int(np.isfinite(item.seconds).sum()) for item in rows)
    assert answered / sum(len(item.index) for item in rows) > 0.99
