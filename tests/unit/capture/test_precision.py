"""A precision laid over unmodified code: which layers take it, which do not, and that it computes as stated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from windtunnel.capture.observe import Observer
from windtunnel.capture.precision import Precision, become
from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError
from windtunnel.numerics.profiles import HOPPER, S5000, NumericProfile
from windtunnel.numerics.training import BLOCKWISE, S5000_BLOCKWISE, LinearRecipe, fp8_linear
from windtunnel.specs.catalogue import chip


@pytest.fixture
def session(values: Session) -> Iterator[Session]:
    yield values
    become(values.state, values.chip, Precision.AS_WRITTEN)
    assert not torch.is_autocast_enabled("musa")


SIDES = {"mtt-s5000": (S5000_BLOCKWISE, S5000), "h100-sxm": (BLOCKWISE, HOPPER)}


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("ideal", [False, True])
def test_linear_layers_compute_the_chips_own_recipe(session: Session, name: str, ideal: bool) -> None:
    recipe, profile = SIDES[name]
    become(session.state, chip(name), Precision.FP8, ideal=ideal)
    expected = trained("cpu", recipe, profile.idealised() if ideal else profile)
    for ours, theirs in zip(trained("musa", None, profile), expected, strict=True):
        assert torch.equal(ours, theirs)


def trained(device: str, recipe: LinearRecipe | None, profile: NumericProfile) -> list[torch.Tensor]:
    """Result and gradients of one layer: by plain code on the card, by the recipe's function on the CPU."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, 160, generator=draw).to(device).requires_grad_()
    weight = torch.randn(48, 160, generator=draw).to(device).requires_grad_()
    if recipe is None:
        out = functional.linear(x, weight)
    else:
        out = fp8_linear(x.bfloat16(), weight, None, recipe, profile)
    out.backward(torch.randn(3, 8, 48, generator=draw).to(device, torch.bfloat16))
    assert x.grad is not None
    assert weight.grad is not None
    return [t.detach().cpu() for t in (out, x.grad, weight.grad)]


def test_what_fp8_products_do_not_take_stays_in_bf16(session: Session) -> None:
    become(session.state, session.chip, Precision.FP8)
    odd = nn.Linear(32, 24).to("musa")(torch.randn(4, 32, device="musa"))
    assert odd.dtype is torch.bfloat16
    empty = nn.Linear(32, 32).to("musa")(torch.randn(0, 32, device="musa"))
    assert empty.shape == (0, 32)
    host = nn.Linear(32, 32)(torch.randn(4, 32))
    assert host.dtype is torch.float32
    names = [spec.name for spec in session.program().specs]
    assert "windtunnel.fp8_linear.default" not in names


def test_experts_take_fp8_group_by_group(session: Session) -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(10, 32, generator=draw), torch.randn(3, 32, 16, generator=draw)
    become(session.state, session.chip, Precision.FP8)
    offsets = torch.tensor([4, 4, 9], dtype=torch.int32).to("musa")  # an empty group, and a row of none
    out = functional.grouped_mm(a.to("musa"), b.to("musa"), offs=offsets).cpu()
    parts = [
        fp8_linear(a[rows].bfloat16(), b[e].t(), None, S5000_BLOCKWISE, S5000)
        for e, rows in ((0, slice(0, 4)), (2, slice(4, 9)))
    ]
    assert torch.equal(out, torch.cat([*parts, torch.zeros(1, 16, dtype=torch.bfloat16)]))


def test_backward_and_optimizer_run_outside_autocast(session: Session) -> None:
    seen = []
    become(session.state, session.chip, Precision.BF16)
    layer = nn.Linear(16, 16).to("musa")
    layer.weight.register_hook(lambda grad: seen.append(torch.is_autocast_enabled("musa")))
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    optimizer.register_step_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("musa")))
    for _ in range(2):
        out = layer(torch.randn(4, 16, device="musa"))
        assert out.dtype is torch.bfloat16
        assert layer.weight.dtype is torch.float32
        out.float().sum().backward()
        optimizer.step()
    assert seen == [False] * 4
    assert torch.is_autocast_enabled("musa")


def test_refusals(session: Session) -> None:
    for name, precision in (("a100-80g", Precision.FP8), ("mtt-s4000", Precision.FP8_TENSORWISE)):
        with pytest.raises(WindtunnelError) as error:
            become(session.state, chip(name), precision)
        assert error.value.code == "E702"


def test_shapes_alone_have_no_precision(shadow: Session) -> None:
    with pytest.raises(WindtunnelError) as error:
        become(shadow.state, shadow.chip, Precision.BF16)
    assert error.value.code == "E719"


def test_an_observer_sees_each_line_once_a_visit(session: Session) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            x = x.add_(1)  # writes into what the line before computed
            return self.second(x)

    model = Two().to("musa")
    observer = Observer(session.state)
    out = model(torch.ones(2, 4, device="musa"))
    out.sum().backward()
    seen = [one for one in observer.seen() if one.module.startswith("Two")]
    assert [one.module for one in seen] == ["Two.first", "Two", "Two.second"]
    assert torch.equal(seen[1].values, seen[0].values + 1)
    assert torch.equal(seen[2].values, out.detach().cpu().flatten())
    assert seen[0].line.endswith(".py:" + str(Two.forward.__code__.co_firstlineno + 1))
    assert not observer.has_attention
