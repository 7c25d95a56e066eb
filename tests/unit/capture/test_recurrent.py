"""Recurrent networks: the card's fused cells compute what the CPU's do, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from windtunnel.capture.session import Session


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bias", [True, False])
def test_values_equal_the_cpus(values: Session, kind: type[nn.LSTM], bias: bool) -> None:
    torch.manual_seed(0)
    model = kind(5, 7, num_layers=2, bias=bias, batch_first=True)
    x = torch.randn(3, 4, 5)
    expected, _ = model(x)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    model.to("musa")
    out, _ = model(x.to("musa"))
    out.square().sum().backward()
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-5, atol=1e-6)
    for parameter, gradient in zip(model.parameters(), gradients):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.cpu(), gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_shapes_without_data(shadow: Session, kind: type[nn.LSTM]) -> None:
    model = kind(256, 512, batch_first=True).to("musa")
    out, _ = model(torch.randn(32, 4, 256, device="musa"))
    assert out.shape == (32, 4, 512)
    out.sum().backward()
    assert model.weight_ih_l0.grad is not None


def test_packed_sequences_take_lengths_from_the_host(shadow: Session) -> None:
    x = torch.randn(2, 3, 4, device="musa")
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True)
    assert packed.data.shape == (5, 4)
    out, _ = nn.GRU(4, 6, batch_first=True).to("musa")(packed)
    padded, lengths = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    assert padded.shape == (2, 3, 6)
    assert lengths.tolist() == [3, 2]
