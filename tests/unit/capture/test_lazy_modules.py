"""Modules whose parameters get their shape at the first call."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from windtunnel.capture.session import Session


def test_lazy_modules_moved_before_their_first_call(values: Session) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.LazyLinear(2, bias=False)).to("musa")
    assert {p.device.type for p in model.parameters()} == {"musa"}
    weight = model[0].weight
    assert isinstance(weight, UninitializedParameter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    out = model(torch.randn(8, 3).to("musa"))
    assert weight is model[0].weight
    assert type(model[0]) is nn.Linear
    assert weight.shape == (6, 3)
    assert not isinstance(weight, UninitializedParameter)
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"musa"}
    assert not model[1].running_mean.requires_grad
    before = weight.detach().cpu().clone()
    out.sum().backward()
    optimizer.step()
    assert not torch.equal(weight.detach().cpu(), before)


def test_lazy_modules_made_on_the_card(shadow: Session) -> None:
    layer = nn.LazyConv2d(8, 3, device="musa", dtype=torch.bfloat16)
    assert layer.weight.device.type == "musa"
    out = layer(torch.randn(2, 3, 8, 8, device="musa", dtype=torch.bfloat16))
    assert out.shape == (2, 8, 6, 6)
    assert layer.weight.dtype is torch.bfloat16


def test_lazy_modules_come_back_change_type_and_are_copied(shadow: Session) -> None:
    layer = nn.LazyLinear(4).to("musa").half()
    twin = copy.deepcopy(layer)
    assert layer.weight.device.type == "musa"
    layer.cpu().float()
    assert layer.weight.device.type == "cpu"
    assert layer(torch.ones(2, 3)).shape == (2, 4)
    assert twin(torch.ones(2, 3, device="musa", dtype=torch.float16)).dtype is torch.float16
    assert twin.weight.device.type == "musa"


def test_a_checkpoint_gives_the_shape(shadow: Session) -> None:
    layer = nn.LazyLinear(4).to("musa")
    layer.load_state_dict(nn.Linear(3, 4).state_dict())
    assert layer.weight.shape == (4, 3)
    assert layer.weight.device.type == "musa"
