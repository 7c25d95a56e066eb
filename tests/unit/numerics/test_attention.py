"""Attention: FP64 against PyTorch's definition, half precision within its rounding, edges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.attention import chip_attention, chip_attention_backward
from windtunnel.numerics.profiles import HOPPER, S5000


def tensors(dtype: torch.dtype, heads: int = 4, shared: int = 4) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, heads, 5, 8), (2, shared, 7, 8), (2, shared, 7, 6))
    return [torch.randn(shape, generator=draw).to(dtype).requires_grad_() for shape in shapes]


MASK = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) > 0.3
CASES = [
    {},
    {"is_causal": True},
    {"scale": 0.3},
    {"mask": MASK},
    {"mask": torch.randn(2, 1, 5, 7, generator=torch.Generator().manual_seed(2)).double()},
]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("shared", [4, 2])
def test_fp64_equals_the_definition(options: dict, shared: int) -> None:
    query, key, value = tensors(torch.float64, shared=shared)
    gqa = shared != 4
    renamed = {"attn_mask" if name == "mask" else name: given for name, given in options.items()}
    want = F.scaled_dot_product_attention(query, key, value, enable_gqa=gqa, **renamed)
    plain = [x.detach() for x in (query, key, value)]
    got = chip_attention(*plain, profile=HOPPER, enable_gqa=gqa, **options)
    assert torch.allclose(got.out, want, atol=1e-12)
    grad = torch.randn_like(want)
    gradients = chip_attention_backward(grad, *plain, got, profile=HOPPER, enable_gqa=gqa, **options)
    for ours, theirs in zip(
        (gradients.query, gradients.key, gradients.value),
        torch.autograd.grad(want, (query, key, value), grad),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=2e-6)  # the log-sum-exp is saved in FP32, as on cards


@pytest.mark.parametrize("profile", [HOPPER, S5000, S5000.idealised()], ids=["h", "s", "ideal"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(profile, dtype: torch.dtype) -> None:
    query, key, value = (x.detach() for x in tensors(dtype))
    got = chip_attention(query, key, value, profile=profile, is_causal=True)
    want = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), is_causal=True)
    assert got.out.dtype is dtype
    assert torch.allclose(got.out.double(), want, atol=0.02)
    grads = chip_attention_backward(
        torch.ones_like(got.out), query, key, value, got, profile=profile, is_causal=True
    )
    assert grads.query.dtype is dtype
    assert bool(grads.value.isfinite().all())


def test_rows_that_attend_to_nothing_are_zero() -> None:
    query, key, value = (x.detach() for x in tensors(torch.bfloat16))
    nothing = torch.zeros(5, 7, dtype=torch.bool)
    got = chip_attention(query, key, value, nothing, profile=HOPPER)
    assert bool((got.out == 0).all())
    assert bool((got.logsumexp == -torch.inf).all())
    grads = chip_attention_backward(torch.ones_like(got.out), query, key, value, got, nothing, profile=HOPPER)
    assert all(bool((grad == 0).all()) for grad in (grads.query, grads.key, grads.value))
    no_keys = chip_attention(query, key[:, :, :0], value[:, :, :0], profile=HOPPER)
    assert no_keys.out.shape == (2, 4, 5, 6)
    assert bool((no_keys.out == 0).all())


def test_gradient_of_an_additive_mask() -> None:
    query, key, value = tensors(torch.float64)
    mask = torch.randn(1, 4, 5, 7, dtype=torch.float64, requires_grad=True)
    want = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    plain = [x.detach() for x in (query, key, value)]
    got = chip_attention(*plain, mask.detach(), profile=HOPPER)
    grads = chip_attention_backward(
        torch.ones_like(want), *plain, got, mask.detach(), profile=HOPPER, mask_gradient=True
    )
    (theirs,) = torch.autograd.grad(want.sum(), mask)
    assert grads.mask is not None
    assert torch.allclose(grads.mask, theirs, atol=1e-6)


def test_dropout_keeps_the_expectation() -> None:
    query, key, value = (x.detach() for x in tensors(torch.float32))
    full = chip_attention(query, key, value, profile=HOPPER).out
    draw = torch.Generator().manual_seed(3)
    outs = []
    for _ in range(300):
        keep = torch.rand(2, 4, 5, 7, generator=draw) >= 0.25
        outs.append(chip_attention(query, key, value, profile=HOPPER, keep=keep, dropout=0.25).out)
    assert torch.allclose(torch.stack(outs).mean(0), full, atol=0.2)


def test_shapes_that_do_not_fit_are_refused() -> None:
    query, key, value = (x.detach() for x in tensors(torch.bfloat16))
    for bad in ((query[..., :4], key, value), (query, key[:, :, :3], value)):
        with pytest.raises(WindtunnelError) as caught:
            chip_attention(*bad, profile=HOPPER)
        assert caught.value.code == "E704"
    with pytest.raises(WindtunnelError):
        chip_attention(query, key[:, :3], value[:, :3], profile=HOPPER, enable_gqa=True)
