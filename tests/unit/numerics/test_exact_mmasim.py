"""Bit for bit against mmasim, an independent model of the silicon, on vectors drawn when the test runs."""

from __future__ import annotations

import os
import secrets
import warnings
from dataclasses import replace

import pytest
import torch

from tests.unit.numerics.test_exact import operands, same_bits
from windtunnel.numerics.accumulators import Accumulator, Rounding
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import BF16, E4M3, E5M2, FP16, TF32, FloatFormat
from windtunnel.numerics.profiles import (
    ADA,
    AMPERE,
    BLACKWELL,
    HOPPER,
    TURING,
    VOLTA,
    NumericProfile,
    Operand,
)

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmasim.nv_ptx as nv
except Exception as reason:  # it builds an extension when imported
    pytest.skip(f"mmasim cannot be loaded: {reason}", allow_module_level=True)

SEED = int(os.environ.get("WINDTUNNEL_TEST_SEED", "0")) or secrets.randbits(31)
PTX = {
    E4M3: ("e4m3", torch.float8_e4m3fn),
    E5M2: ("e5m2", torch.float8_e5m2),
    FP16: ("f16", torch.float16),
    BF16: ("bf16", torch.bfloat16),
    TF32: ("tf32", torch.float32),
}
# Profile, instruction class, architecture, K of the instruction, formats of A and B.
INSTRUCTIONS = [
    (VOLTA, "MMA", "Volta", "m8n8k4", FP16, FP16),
    (TURING, "MMA", "Turing", "m16n8k8", FP16, FP16),
    (AMPERE, "MMA", "Ampere", "m16n8k16", FP16, FP16),
    (AMPERE, "MMA", "Ampere", "m16n8k16", BF16, BF16),
    (AMPERE, "MMA", "Ampere", "m16n8k8", TF32, TF32),
    (ADA, "MMA", "Ada Lovelace", "m16n8k32", E4M3, E5M2),
    (ADA, "MMA", "Ada Lovelace", "m16n8k16", BF16, BF16),
    (HOPPER, "WGMMA", "Hopper", "m64n8k32", E4M3, E4M3),
    (HOPPER, "WGMMA", "Hopper", "m64n8k32", E5M2, E4M3),
    (HOPPER, "WGMMA", "Hopper", "m64n8k16", BF16, BF16),
    (HOPPER, "WGMMA", "Hopper", "m64n8k16", FP16, FP16),
    (HOPPER, "WGMMA", "Hopper", "m64n8k8", TF32, TF32),
    (BLACKWELL, "TCGen05MMA", "Blackwell", "m64n8k32.kind::f8f6f4", E4M3, E5M2),
    (BLACKWELL, "TCGen05MMA", "Blackwell", "m64n8k16.kind::f16", BF16, BF16),
    (BLACKWELL, "TCGen05MMA", "Blackwell", "m64n8k8.kind::tf32", TF32, TF32),
]
OPERAND = {E4M3: Operand.FP8, E5M2: Operand.FP8, FP16: Operand.FP16, BF16: Operand.BF16, TF32: Operand.TF32}
every_instruction = pytest.mark.parametrize(
    "instruction", INSTRUCTIONS, ids=[f"{row[0].name}-{row[4].name}-{row[5].name}" for row in INSTRUCTIONS]
)
Instruction = tuple[NumericProfile, str, str, str, FloatFormat, FloatFormat]


def oracle(row: Instruction, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, result: str) -> torch.Tensor:
    """mmasim's running product over a K longer than one instruction."""
    _, kind, arch, shape, fmt_a, fmt_b = row
    types = f"{result}.{PTX[fmt_a][0]}.{PTX[fmt_b][0]}"
    name = f"{shape}.{types}.{result}" if kind == "MMA" else f"{shape}.{types}"
    operation = getattr(nv, kind)(arch, name)
    out = c.half() if result == "f16" else c
    for k in range(0, a.shape[1], operation.k):
        left = a[:, k : k + operation.k].to(PTX[fmt_a][1])
        right = b[k : k + operation.k].to(PTX[fmt_b][1])
        out = operation(left, right, out)
    return out.float()


def mismatches(row: Instruction, accumulator: Accumulator, result: str, kind: str, depth: int) -> int:
    a, b = operands((row[4], row[5]), (24, depth, 20), kind, SEED)
    c = torch.randn(24, 20, generator=torch.Generator().manual_seed(SEED)) * (
        1 if kind == "gaussian" else 1e-3
    )
    if result == "f16":
        c = c.half().float()
    if accumulator.register_bits == 13:
        c = (c.view(torch.int32) & ~0x3FF).view(torch.float32)
    got = exact_matmul(a, b, accumulator, (row[4], row[5]), start=c)
    want = oracle(row, a, b, c, result)
    differ = (got.view(torch.int32) != want.view(torch.int32)) & ~(got.isnan() & want.isnan())
    return int(differ.sum())


@every_instruction
@pytest.mark.parametrize("kind", ["gaussian", "spread", "cancelling", "bits"])
def test_no_mismatch(instruction: Instruction, kind: str) -> None:
    accumulator = instruction[0].accumulators[OPERAND[instruction[4]]]
    assert mismatches(instruction, accumulator, "f32", kind, 128) == 0, f"seed {SEED}"


@pytest.mark.parametrize(
    "instruction",
    [row for row in INSTRUCTIONS if row[4] in (FP16, E4M3)],
    ids=lambda row: f"{row[0].name}-{row[4].name}",
)
@pytest.mark.parametrize("kind", ["gaussian", "spread", "bits"])
def test_no_mismatch_with_an_fp16_register(instruction: Instruction, kind: str) -> None:
    accumulator = instruction[0].accumulators[OPERAND[instruction[4]]].with_fp16_register()
    assert mismatches(instruction, accumulator, "f16", kind, 128) == 0, f"seed {SEED}"


def test_the_comparison_has_teeth() -> None:
    row = next(row for row in INSTRUCTIONS if row[0] is HOPPER and row[4] is E4M3)
    right = HOPPER.accumulators[Operand.FP8]
    wrong = [
        replace(right, fraction_bits=12),
        replace(right, fraction_bits=14),
        replace(right, terms=16),
        replace(right, rounding=Rounding.NEAREST),
        replace(right, register_bits=23),
    ]
    assert mismatches(row, right, "f32", "gaussian", 128) == 0
    for accumulator in wrong:
        assert mismatches(row, accumulator, "f32", "gaussian", 128) > 24 * 20 // 10, accumulator


@pytest.mark.slow
@every_instruction
@pytest.mark.parametrize("kind", ["gaussian", "spread", "bits"])
def test_no_mismatch_at_long_k(instruction: Instruction, kind: str) -> None:
    accumulator = instruction[0].accumulators[OPERAND[instruction[4]]]
    assert mismatches(instruction, accumulator, "f32", kind, 4096) == 0, f"seed {SEED}"


def test_agreement_is_of_bits_not_values() -> None:
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
