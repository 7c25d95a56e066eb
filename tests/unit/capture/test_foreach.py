"""List operations: the shortcut for shapes agrees with PyTorch's own inference."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from windtunnel.capture.session import Session

CASES = {
    "add": lambda a, b: torch._foreach_add(a, b),
    "mul scalar": lambda a, b: torch._foreach_mul(a, 2.0),
    "sqrt": lambda a, b: torch._foreach_sqrt(a),
    "lerp": lambda a, b: torch._foreach_lerp(a, b, 0.1),
    "norm": lambda a, b: torch._foreach_norm(a),
    "addcdiv": lambda a, b: torch._foreach_addcdiv(a, b, b, 0.5),
    "pow": lambda a, b: torch._foreach_pow(0.9, a),
}


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_strides(shadow: Session, name: str) -> None:
    def run(device: str) -> Any:
        a = [torch.empty(64, 64, device=device), torch.empty(100, 64, device=device).t()]
        b = [torch.empty(64, 64, device=device), torch.empty(100, 64, device=device).t()]
        return CASES[name](a, b)

    for expected, found in zip(run("meta"), run("musa"), strict=True):
        assert found.shape == expected.shape
        assert found.stride() == expected.stride()
        assert found.dtype is expected.dtype


def test_mixed_dtypes_take_the_long_way(shadow: Session) -> None:
    a = [torch.empty(64, 64, device="musa", dtype=torch.bfloat16)]
    b = [torch.empty(64, 64, device="musa")]
    assert torch._foreach_add(a, b)[0].dtype is torch.float32
