"""Operators that nobody knows: described in a few lines, or refused with the lines that would do."""

from __future__ import annotations

import pytest
import torch

from windtunnel.capture.custom import register_op
from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError
from windtunnel.program.work import Family, Work

LIBRARY = torch.library.Library("windtunnel_test", "DEF")
LIBRARY.define("pick(Tensor x, int k) -> Tensor")
LIBRARY.impl("pick", lambda x, k: x[:, :k].contiguous(), "CPU")
LIBRARY.define("known(Tensor x) -> Tensor")
LIBRARY.impl("known", lambda x: x.new_empty(x.shape), "Meta")


def test_an_undescribed_operator_is_refused_with_the_lines_to_write(shadow: Session) -> None:
    with pytest.raises(WindtunnelError, match="E420") as caught:
        torch.ops.windtunnel_test.pick(torch.empty(4096, 4096, device="musa"), 3)
    assert 'windtunnel.register_op("windtunnel_test::pick"' in caught.value.hint


def test_a_described_operator_is_recorded_with_its_cost(shadow: Session) -> None:
    register_op(
        "windtunnel_test::pick",
        shape=lambda x, k: x.new_empty(x.shape[0], k),
        cost=lambda spec: Work(family=Family.SORT, bytes_read=spec.inputs[0].nbytes),
    )
    out = torch.ops.windtunnel_test.pick(torch.empty(4096, 4096, device="musa"), 3)
    assert out.shape == (4096, 3)
    program = shadow.program()
    works = {s.base_name: w for s, w in zip(program.specs, program.works, strict=True)}
    assert works["windtunnel_test.pick"].family is Family.SORT


def test_a_fake_kernel_is_enough(shadow: Session) -> None:
    out = torch.ops.windtunnel_test.known(torch.empty(64, 64, device="musa"))
    assert out.shape == (64, 64)


def test_values_use_the_operators_own_kernel(values: Session) -> None:
    x = torch.arange(6.0, device="musa").view(2, 3)
    assert torch.ops.windtunnel_test.pick(x, 1).tolist() == [[0.0], [3.0]]
