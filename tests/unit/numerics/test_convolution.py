"""Convolutions and their gradients against PyTorch's, in FP64 for the layout and in BF16 for the rounding."""

from __future__ import annotations

import pytest
import torch

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.convolution import ConvolutionShape, chip_convolution, chip_convolution_backward
from windtunnel.numerics.matmul import MathMode
from windtunnel.numerics.profiles import HOPPER, S5000


def case(
    dims: int, transposed: bool, groups: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, ConvolutionShape]:
    draw = torch.Generator().manual_seed(dims)
    kernel = (3, 2, 3)[:dims]
    channels = (4, 6 // groups) if transposed else (6, 4 // groups)
    x = torch.randn(2, 4, *(7, 6, 5)[:dims], generator=draw, dtype=torch.float64)
    weight = torch.randn(*channels, *kernel, generator=draw, dtype=torch.float64)
    bias = torch.randn(6, generator=draw, dtype=torch.float64)
    shape = ConvolutionShape(
        (2, 1, 2)[:dims],
        (1, 1, 2)[:dims],
        (1, 2, 1)[:dims],
        transposed,
        (1, 0, 1)[:dims] if transposed else (0,) * dims,
        groups,
    )
    return x, weight, bias, shape


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_fp64_equals_pytorch(dims: int, transposed: bool, groups: int) -> None:
    x, weight, bias, shape = case(dims, transposed, groups)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    want = torch.ops.aten.convolution(
        *leaves, shape.stride, shape.padding, shape.dilation, transposed, shape.output_padding, groups
    )
    got = chip_convolution(x, weight, bias, shape, profile=HOPPER)
    assert torch.allclose(got, want, atol=1e-12)
    grad = torch.randn_like(want)
    gradients = chip_convolution_backward(grad, x, weight, shape, profile=HOPPER)
    for ours, theirs in zip(
        (gradients.input, gradients.weight, gradients.bias),
        torch.autograd.grad(want, leaves, grad),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_bf16_goes_through_the_tensor_cores() -> None:
    x, weight, bias, shape = (
        item.bfloat16() if isinstance(item, torch.Tensor) else item for item in case(2, False, 1)
    )
    got = chip_convolution(x, weight, bias, shape, profile=S5000)
    want = torch.nn.functional.conv2d(
        x.double(), weight.double(), bias.double(), shape.stride, shape.padding, shape.dilation
    )
    assert got.dtype is torch.bfloat16
    assert torch.allclose(got.double(), want, rtol=1e-2, atol=1e-2)
    assert not torch.equal(got.double(), want)


def test_tf32_switch_of_convolutions_is_its_own() -> None:
    x, weight, _, shape = (
        item.float() if isinstance(item, torch.Tensor) else item for item in case(2, False, 1)
    )
    plain = chip_convolution(x, weight, None, shape, profile=HOPPER, mode=MathMode(tf32_matmul=True))
    tf32 = chip_convolution(x, weight, None, shape, profile=HOPPER, mode=MathMode(tf32_convolution=True))
    want = torch.nn.functional.conv2d(x, weight, None, shape.stride, shape.padding, shape.dilation)
    assert torch.allclose(plain, want, atol=1e-5)
    assert 1e-5 < float((tf32 - want).abs().max()) < 0.05


def test_channels_that_do_not_fit_are_refused() -> None:
    x, weight, _, shape = case(2, False, 1)
    with pytest.raises(WindtunnelError) as caught:
        chip_convolution(x[:, :3], weight, None, shape, profile=HOPPER)
    assert caught.value.code == "E704"
