"""``tensor.data = …`` between host and card."""

from __future__ import annotations

import torch
from torch import nn

import windtunnel
from windtunnel.capture.session import Session


def test_parameters_moved_by_their_data_stay_the_same(shadow: Session) -> None:
    model = nn.Linear(300, 300)
    weight = model.weight
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.data = parameter.data.to("musa")
    assert model.weight is weight
    assert isinstance(weight, nn.Parameter)
    assert weight.device.type == "musa"
    model(torch.randn(4, 300, device="musa")).sum().backward()
    optimizer.step()
    assert optimizer.state[weight]["exp_avg"].device.type == "musa"


def test_frozen_parameters_and_buffers_keep_what_they_are(shadow: Session) -> None:
    frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    buffer = torch.arange(3)
    for tensor in (frozen, buffer):
        tensor.data = tensor.to("musa")
        assert tensor.device.type == "musa"
        assert not tensor.requires_grad
    assert not isinstance(buffer, nn.Parameter)
    assert buffer.tolist() == [0, 1, 2]


def test_the_host_s_own_data_is_pytorch_s(shadow: Session) -> None:
    tensor = torch.randn(3, requires_grad=True)
    tensor.data = torch.zeros(2)
    assert tensor.tolist() == [0.0, 0.0]
    assert tensor.requires_grad
    assert not tensor.data.requires_grad
    assert tensor.data.data_ptr() == tensor.data_ptr()


def test_parameters_taken_off_the_card_are_the_host_s(shadow: Session) -> None:
    """Offloading: memory of the card falls, the optimizer's parameter is the same object, and comes back."""
    model = nn.Linear(512, 512, device="musa")
    weight = model.weight
    model(torch.randn(2, 512, device="musa")).sum().backward()
    before = torch.musa.memory_allocated()
    host = torch.full((512, 512), 3.0)
    weight.data = host
    assert host.device.type == "cpu"
    assert weight.device.type == "cpu"
    assert weight is model.weight
    assert isinstance(weight, nn.Parameter)
    assert weight.data_ptr() == host.data_ptr()
    assert weight.grad is not None
    assert weight.grad.device.type == "cpu"
    assert before - torch.musa.memory_allocated() >= 2 * 512 * 512 * 4
    weight.data = weight.data.to("musa")
    assert weight.device.type == "musa"
    model(torch.randn(2, 512, device="musa")).sum().backward()


def test_values_go_along(values: Session) -> None:
    tensor = torch.arange(4.0, device="musa")
    tensor.data = torch.ones(2, 2)
    assert tensor.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert tensor.device.type == "cpu"
    tensor.data = tensor.data.to("musa") * 2
    assert tensor.cpu().tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_lazy_modules_take_their_shape_after_a_session() -> None:
    with windtunnel.record("mtt-s5000"):
        torch.ones(2, 3, device="cuda").sum()
    layer = torch.nn.LazyLinear(4)
    assert layer(torch.ones(2, 3)).shape == (2, 4)
