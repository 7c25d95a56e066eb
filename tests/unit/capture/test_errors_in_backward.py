"""What the card raises inside a backward pass reaches the script; PyTorch would abort the process."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from windtunnel.capture.session import Session


def test_out_of_memory_in_backward_is_raised_and_the_card_goes_on(shadow: Session) -> None:
    x = torch.empty(6 * 2**30, device="musa", requires_grad=True)  # 24 GiB; the graph holds 72
    loss = (x * x).mul(x).sum()
    with pytest.raises(torch.OutOfMemoryError, match=r"24\.00 GiB"):
        loss.backward()
    y = torch.ones(3, device="musa", requires_grad=True)
    (y * y).sum().backward()
    assert y.grad is not None
    assert y.grad.shape == (3,)


def test_an_error_in_the_scripts_own_backward_stays_its_own(shadow: Session) -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            raise ValueError("mine")

    x = torch.ones(3, device="musa", requires_grad=True)
    with pytest.raises(ValueError, match="mine"):
        Fails.apply(x).sum().backward()


def test_half_precision_convolution_trains_with_values(values: Session) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    image = torch.randn(2, 3, 8, 8)
    expected = image.clone().requires_grad_()
    layer(expected).sum().backward()
    x = image.to("musa").requires_grad_()
    with torch.autocast("musa", torch.float16):
        layer.to("musa")(x).sum().backward()
    assert x.grad is not None
    assert expected.grad is not None
    torch.testing.assert_close(x.grad.cpu(), expected.grad, rtol=1e-2, atol=1e-2)


def test_lazy_conjugation_is_not_lost(values: Session) -> None:
    z = torch.tensor([1 + 2j, 3 - 1j])
    on_card = z.to("musa")
    assert torch.equal((on_card.conj() * 1).cpu(), (z.conj() * 1).resolve_conj())
    assert torch.equal(on_card.conj().imag.cpu(), z.conj().imag.clone())


def test_a_padded_encoder_infers(values: Session) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1).eval()
    x, padded = torch.randn(2, 4, 16), torch.tensor([[False] * 4, [False, False, True, True]])
    with torch.no_grad():
        expected = encoder(x, src_key_padding_mask=padded)
        found = encoder.to("musa")(x.to("musa"), src_key_padding_mask=padded.to("musa")).cpu()
    torch.testing.assert_close(found[~padded], expected[~padded], rtol=1e-5, atol=1e-5)


def test_an_error_that_is_not_the_cards_is_named_too(shadow: Session) -> None:
    from functools import partial

    from torch.utils.checkpoint import (
        CheckpointPolicy,
        checkpoint,
        create_selective_checkpoint_contexts,
    )

    def policy(ctx: object, op: object, *args: object, **kwargs: object) -> CheckpointPolicy:
        kept = op is torch.ops.aten.mm.default
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    w = torch.empty(16, 16, device="musa", requires_grad=True)
    x = torch.empty(4, 16, device="musa", requires_grad=True)
    y = checkpoint(
        lambda t: (t @ w).sin() @ w,
        x,
        use_reentrant=False,
        context_fn=partial(create_selective_checkpoint_contexts, policy),
    ).sum()
    torch.autograd.grad(y, x, retain_graph=True)
    with pytest.raises(RuntimeError, match="only allowed to backward once"):
        torch.autograd.grad(y, w)
    y2 = (x @ w).sum()
    y2.backward()
    assert x.grad is not None
