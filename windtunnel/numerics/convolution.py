"""Convolutions as implicit GEMMs: patches laid out as a matrix, multiplied on the chip's tensor cores.

The order of K is channel, then kernel position; libraries choose their own, undisclosed, so that a
bit-exact profile is exact here for the instruction, not for the whole convolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.matmul import IEEE, MathMode, wide_product
from windtunnel.numerics.profiles import NumericProfile


@dataclass(frozen=True, slots=True)
class ConvolutionShape:
    """The arguments of ``aten.convolution`` that are not tensors; one entry per spatial dimension."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    transposed: bool = False
    output_padding: Sequence[int] = ()
    groups: int = 1


@dataclass(frozen=True, slots=True)
class ConvolutionGradients:
    """Gradients of input, weight and bias."""

    input: Tensor
    weight: Tensor
    bias: Tensor


def chip_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shape: ConvolutionShape,
    *,
    profile: NumericProfile,
    mode: MathMode = IEEE,
) -> Tensor:
    """``aten.convolution`` in one, two or three dimensions: x [N, C, ...], weight [O, C / groups, ...].

    Transposed: weight [C, O / groups, ...]. The bias is added in FP32, then one rounding.

    Raises:
        WindtunnelError: E704 where channels or kernel do not fit.
    """
    _check(x, weight, shape)
    if shape.transposed:
        wide = _input_gradient(x, weight, _transposed_size(x, weight, shape), shape, profile, mode)
    else:
        wide = _forward(x, weight, shape, profile, mode)
    if bias is not None:
        wide = wide + bias.to(wide.dtype).reshape(1, -1, *[1] * (x.dim() - 2))
    return wide.to(x.dtype)


def chip_convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    shape: ConvolutionShape,
    *,
    profile: NumericProfile,
    mode: MathMode = IEEE,
) -> ConvolutionGradients:
    """``aten.convolution_backward``: two more products and a sum."""
    _check(x, weight, shape)
    if shape.transposed:  # the transposed convolution is the input gradient of a plain one
        grad_x = _forward(grad, weight, shape, profile, mode)
        grad_weight = _weight_gradient(x, grad, weight, shape, profile, mode)
    else:
        grad_x = _input_gradient(grad, weight, x.shape[2:], shape, profile, mode)
        grad_weight = _weight_gradient(grad, x, weight, shape, profile, mode)
    grad_bias = grad.to(grad_x.dtype).sum([0, *range(2, grad.dim())])
    return ConvolutionGradients(grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(grad.dtype))


def _forward(
    x: Tensor, weight: Tensor, shape: ConvolutionShape, profile: NumericProfile, mode: MathMode
) -> Tensor:
    patches = _patches(x, weight.shape[2:], shape)
    spatial = patches.shape[2 : x.dim()]
    columns = _columns(patches, x, shape)  # [N, groups, positions, C / groups * kernel]
    kernels = weight.reshape(shape.groups, weight.shape[0] // shape.groups, -1)
    parts = [
        _product(columns[:, g].reshape(-1, columns.shape[-1]), kernels[g].t(), profile, mode)
        for g in range(shape.groups)
    ]
    wide = torch.cat(parts, 1).reshape(x.shape[0], *spatial, weight.shape[0])
    return wide.movedim(-1, 1).contiguous()


def _weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, shape: ConvolutionShape, profile: NumericProfile, mode: MathMode
) -> Tensor:
    columns = _columns(_patches(x, weight.shape[2:], shape), x, shape)
    channels = weight.shape[0] // shape.groups
    rows = grad.reshape(grad.shape[0], shape.groups, channels, -1)
    parts = [
        _product(
            rows[:, g].transpose(0, 1).reshape(channels, -1),
            columns[:, g].reshape(-1, columns.shape[-1]),
            profile,
            mode,
        )
        for g in range(shape.groups)
    ]
    return torch.cat(parts).reshape(weight.shape)


def _input_gradient(
    grad: Tensor,
    weight: Tensor,
    size: Sequence[int],
    shape: ConvolutionShape,
    profile: NumericProfile,
    mode: MathMode,
) -> Tensor:
    channels = weight.shape[0] // shape.groups
    kernels = weight.reshape(shape.groups, channels, -1)
    rows = grad.reshape(grad.shape[0], shape.groups, channels, -1).transpose(2, 3)
    parts = [
        _product(rows[:, g].reshape(-1, channels), kernels[g], profile, mode).reshape(
            grad.shape[0], -1, kernels.shape[2]
        )
        for g in range(shape.groups)
    ]
    # Overlapping patches add up where they came from; padding comes from place 0. Not by autograd: this
    # also runs inside PyTorch's own dispatch, where autograd is off.
    extent = (grad.shape[0], weight.shape[1] * shape.groups, *size)
    places = torch.arange(1, 1 + math.prod(extent)).reshape(extent)
    came_from = _columns(_patches(places, weight.shape[2:], shape), places, shape)
    total = torch.zeros(1 + places.numel(), dtype=parts[0].dtype)
    total.index_add_(0, came_from.flatten(), torch.stack(parts, 1).flatten())
    return total[1:].reshape(extent)


def _product(a: Tensor, b: Tensor, profile: NumericProfile, mode: MathMode) -> Tensor:
    return wide_product(a, b, profile, mode, convolution=True)


def _patches(x: Tensor, kernel: Sequence[int], shape: ConvolutionShape) -> Tensor:
    """A view [N, C, *positions, *kernel] of the padded input."""
    padding = [amount for side in reversed(shape.padding) for amount in (side, side)]
    view = torch.nn.functional.pad(x, padding)
    for axis, size in enumerate(kernel):
        reach = shape.dilation[axis] * (size - 1) + 1
        view = view.unfold(2 + axis, reach, shape.stride[axis])
        view = view[..., :: shape.dilation[axis]]
    return view


def _columns(patches: Tensor, x: Tensor, shape: ConvolutionShape) -> Tensor:
    dims = x.dim() - 2
    positions = list(range(2, 2 + dims))
    kernel = list(range(2 + dims, 2 + 2 * dims))
    split = patches.reshape(
        x.shape[0], shape.groups, -1, *patches.shape[2:]
    )  # dimensions after the channel move up by one
    order = [0, 1, *[p + 1 for p in positions], 2, *[k + 1 for k in kernel]]
    laid = split.permute(order)
    return laid.reshape(
        x.shape[0], shape.groups, laid.shape[2 : 2 + dims].numel(), laid.shape[2 + dims :].numel()
    )


def _transposed_size(x: Tensor, weight: Tensor, shape: ConvolutionShape) -> list[int]:
    extra = shape.output_padding or [0] * len(shape.stride)
    return [
        (x.shape[2 + axis] - 1) * shape.stride[axis]
        - 2 * shape.padding[axis]
        + shape.dilation[axis] * (weight.shape[2 + axis] - 1)
        + extra[axis]
        + 1
        for axis in range(x.dim() - 2)
    ]


def _check(x: Tensor, weight: Tensor, shape: ConvolutionShape) -> None:
    channels = weight.shape[0] if shape.transposed else weight.shape[1] * shape.groups
    if x.dim() != weight.dim() or x.dim() not in (3, 4, 5) or x.shape[1] != channels:
        raise WindtunnelError(
            "E704",
            "input and weight of a convolution do not fit",
            hint="channels must equal weight.shape[1] × groups (weight.shape[0] if transposed)",
            values={"input": tuple(x.shape), "weight": tuple(weight.shape), "groups": shape.groups},
        )
