"""Against outputs recorded on eight GPUs, where a copy of them is at hand.

The recordings are public: github.com/north-numerical-computing/MATLAB-tensor-core (BSD-2-Clause), folder
``model_validation``. Point WINDTUNNEL_TENSOR_CORE_VECTORS at that folder to run this: 5,000 dot products
for each GPU and format, 200,000 outputs in all.

Left out, as no published model explains them: FP8 on B200, and FP16 results of FP8 products on H100 and
H200, which come from ``mma.sync``, an emulated path on those chips.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import BF16, E4M3, E5M2, FP16, TF32
from windtunnel.numerics.profiles import ADA, AMPERE, BLACKWELL, HOPPER, VOLTA, Operand

FOLDER = Path(os.environ.get("WINDTUNNEL_TENSOR_CORE_VECTORS", "/nonexistent"))
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="set WINDTUNNEL_TENSOR_CORE_VECTORS to MATLAB-tensor-core/model_validation"
)
PROFILES = {
    "V100": VOLTA,
    "A100": AMPERE,
    "A2": AMPERE,
    "Ada": ADA,
    "L40S": ADA,
    "H100": HOPPER,
    "H200": HOPPER,
    "B200": BLACKWELL,
}
FORMATS = {
    "fp16": (FP16, Operand.FP16),
    "bf16": (BF16, Operand.BF16),
    "tf32": (TF32, Operand.TF32),
    "E4M3": (E4M3, Operand.FP8),
    "E5M2": (E5M2, Operand.FP8),
}
UNEXPLAINED = {("B200", "E4M3"), ("B200", "E5M2")}
UNEXPLAINED_FP16 = {(gpu, fmt) for gpu in ("H100", "H200") for fmt in ("E4M3", "E5M2")}
SETS = [
    (gpu, fmt, result)
    for gpu in PROFILES
    for fmt in FORMATS
    for result in ("fp32", "fp16")
    if (FOLDER / gpu / fmt / f"d_{gpu}_{result}.txt").exists()
    and (gpu, fmt) not in UNEXPLAINED
    and not (result == "fp16" and (gpu, fmt) in UNEXPLAINED_FP16)
]


def numbers(path: Path, base: int) -> torch.Tensor:
    rows = [
        [int(word, base) for word in line.split()] for line in path.read_text().splitlines() if line.strip()
    ]
    pattern = torch.tensor(rows, dtype=torch.int64)
    return torch.where(pattern >= 2**31, pattern - 2**32, pattern).to(torch.int32).view(torch.float32)


@pytest.mark.parametrize(("gpu", "fmt", "result"), SETS)
def test_recorded_outputs(gpu: str, fmt: str, result: str) -> None:
    folder = FOLDER / gpu / fmt
    a, b = (numbers(folder / f"{side}_{gpu}_{fmt}.txt", 16) for side in "ab")
    c = numbers(folder / f"c_{gpu}_fp32.txt", 2)[:, 0]
    want = numbers(folder / f"d_{gpu}_{result}.txt", 2)[:, 0]
    number_format, operand = FORMATS[fmt]
    accumulator = PROFILES[gpu].accumulators[operand]
    if gpu in ("H100", "H200") and operand is Operand.FP8:
        c = torch.zeros_like(c)  # recorded without C, although a file of C lies beside them
    if result == "fp16":
        accumulator, c = accumulator.with_fp16_register(), c.half().float()
    wrong = missed = 0
    for first in range(0, len(a), 250):
        rows = slice(first, first + 250)
        got = exact_matmul(
            a[rows], b[rows].t(), accumulator, (number_format, number_format), start=torch.diag(c[rows])
        ).diagonal()
        wrong += int((got != want[rows]).sum())
        fp32 = (a[rows].double() * b[rows].double()).sum(1) + c[rows].double()
        missed += int((fp32.float() != want[rows]).sum())
    assert len(a) == 5000
    assert wrong == 0
    assert missed > 0.29 * len(a)  # a correctly rounded FP32 dot product does not pass this test


def test_enough_sets_were_found() -> None:
    assert len(SETS) == 40
