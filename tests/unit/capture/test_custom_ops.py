"""Operators that nobody knows: described in a few lines, or refused with the lines that would do."""

from __future__ import annotations

import pytest
import torch

from windtunnel.capture import custom
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


@torch.library.custom_op("windtunnel_test::twice", mutates_args=())
def twice(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (x @ w).relu() + 1


@twice.register_fake
def _(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], w.shape[1])


@torch.library.custom_op("windtunnel_test::foreign", mutates_args=())
def foreign(x: torch.Tensor) -> torch.Tensor:
    doubled = x * 2
    doubled.cpu().numpy().ctypes.nothing_of_the_kind()
    return doubled


@foreign.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def recorded_names(session: Session) -> list[str]:
    program = session.program()
    return [program.specs[program.site(e).spec].base_name for e in program.events.tolist() if e >= 0]


def test_what_is_inside_an_operator_of_python_is_recorded(shadow: Session) -> None:
    x, w = torch.empty(64, 128, device="musa"), torch.empty(128, 256, device="musa")
    for _ in range(2):
        assert twice(x, w).shape == (64, 256)
    names = recorded_names(shadow)
    assert names.count("aten.mm") == 2
    assert names.count("aten.relu") == 2
    assert "windtunnel_test.twice" not in names


def test_an_operator_whose_body_needs_data_is_one_kernel(shadow: Session) -> None:
    x = torch.empty(64, 128, device="musa")
    for _ in range(2):
        assert foreign(x).shape == (64, 128)
    names = recorded_names(shadow)
    assert names.count("windtunnel_test.foreign") == 2
    assert "aten.mul" not in names
    assert any("windtunnel_test.foreign" in notice.what for notice in shadow.recorder.notices())


def test_an_operator_of_python_with_a_registered_cost_stays_whole(shadow: Session) -> None:
    register_op("windtunnel_test::twice", cost=lambda spec: Work(family=Family.GEMM, flops=1.0))
    try:
        twice(torch.empty(64, 128, device="musa"), torch.empty(128, 256, device="musa"))
        assert "windtunnel_test.twice" in recorded_names(shadow)
    finally:
        custom._registered.pop("windtunnel_test.twice")


def test_an_operator_of_python_computes_with_values(values: Session) -> None:
    x, w = torch.ones(2, 3), torch.ones(3, 2)
    torch.testing.assert_close(twice(x.to("musa"), w.to("musa")).cpu(), torch.full((2, 2), 4.0))
