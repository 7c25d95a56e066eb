"""Modules on their way to the card and back: the same parameters, tied ones tied."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from windtunnel.capture.session import Session


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.head = nn.Linear(32, 64, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


def test_tied_weights_stay_tied(shadow: Session) -> None:
    model = Tied().to("musa")
    assert model.head.weight is model.embed.weight
    assert sum(p.numel() for p in model.parameters()) == 64 * 32
    assert model.half().cpu().head.weight is model.embed.weight


def test_parameters_stay_the_same_objects(values: Session) -> None:
    model = nn.Linear(4, 4)
    before = model.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.to("musa")
    assert model.weight is before
    assert isinstance(model.weight, nn.Parameter)
    assert model.weight.device.type == "musa"
    old = model.weight.detach().cpu().clone()
    model(torch.ones(1, 4, device="musa")).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight.detach().cpu(), old)


def test_a_module_that_was_trained_on_the_host_can_move(values: Session) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model(torch.randn(8, 4)).sum().backward()
    model.to("musa")
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.device.type == "musa"
    model(torch.randn(8, 4, device="musa")).sum().backward()
    assert model.cpu()[1].running_mean.device.type == "cpu"


def test_a_weakly_held_parameter_can_move(values: Session) -> None:
    import weakref

    model = Tied()
    held = weakref.ref(model.embed.weight)
    assert held() is model.embed.weight
    model.to("musa")
    assert model.head.weight is model.embed.weight
    assert model.head.weight.device.type == "musa"


@pytest.mark.parametrize("tied", [False, True])
def test_optimizers_follow_where_parameters_cannot_be_swapped(values: Session, tied: bool) -> None:
    """A weak reference to a parameter keeps PyTorch from swapping it; FP16 training then met no gradients."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    if tied:
        model[1].weight = model[0].weight
    held = weakref.ref(model[0].weight)
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("musa")
    model.to("musa")
    assert held() is None  # it was replaced, so the optimizer had to follow
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    before = model[0].weight.detach().cpu().clone()
    scaler.scale(model(torch.ones(2, 4, device="musa")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(model[0].weight.detach().cpu(), before)


def test_what_was_written_on_parameters_moves_with_them(shadow: Session) -> None:
    """Megatron-LM marks experts and split weights that way; lost, their gradients go to the wrong ranks."""
    for model in (nn.Linear(4, 4), nn.Linear(4, 4, device="musa")):
        model.weight.allreduce = False  # type: ignore[assignment]
        for moved in (model.to("musa"), model.bfloat16()):
            assert moved.weight.allreduce is False  # type: ignore[comparison-overlap]
