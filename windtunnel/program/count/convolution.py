"""Convolutions as implicit matrix products.

``flops`` follows PyTorch's counter to the letter, which for the weight gradient of a *grouped* convolution
counts every channel pair, ``groups`` times what is computed. The dims hold what is computed,
2 · m · n · k · batch: ``batch`` is the number of groups, twice that for a backward that makes both gradients.
"""

from __future__ import annotations

from windtunnel.program.count.shapes import (
    Counter,
    number,
    precision_of,
    product,
    read_bytes,
    result,
    table,
    written_bytes,
)
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Family, Work

Shape = tuple[int, ...]


def _counted(x: Shape, weight: Shape, out: Shape, transposed: bool) -> float:
    """FLOPs of one convolution: each output point (input point when transposed) meets the filter."""
    points = product((x if transposed else out)[2:])
    return 2.0 * points * x[0] * product(weight)


def _work(
    spec: OpSpec, flops: float, x: Shape, weight: Shape, out: Shape, transposed: bool, groups: int, gemms: int
) -> Work:
    window = product(weight[2:])
    if transposed:
        m, n, k = x[0] * product(x[2:]), weight[1] * window, weight[0] // groups
    else:
        m, n, k = out[0] * product(out[2:]), weight[0] // groups, weight[1] * window
    return Work(
        family=Family.CONVOLUTION,
        flops=flops,
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        precision=precision_of(spec.inputs[0].dtype),
        kernels=gemms,
        variant="depthwise" if groups > 1 and weight[1] == 1 else "",
        dims=(
            ("m", float(m)),
            ("n", float(n)),
            ("k", float(k)),
            ("batch", float(groups * gemms)),
        ),
    )


def _groups(spec: OpSpec) -> int:
    return max(1, int(number(spec, "groups", 1)))


def _forward(spec: OpSpec, transposed: bool) -> Work:
    x, weight = spec.inputs[0].shape, spec.inputs[1].shape
    out = result(spec).shape
    if len(x) < len(weight):  # no batch dimension
        x, out = (1, *x), (1, *out)
    flops = _counted(x, weight, out, transposed)
    return _work(spec, flops, x, weight, out, transposed, _groups(spec), 1)


def _convolution(spec: OpSpec) -> Work:
    return _forward(spec, bool(spec.attribute("transposed", False)))


def _transposed(spec: OpSpec) -> Work:
    return _forward(spec, True)


def _plain(spec: OpSpec) -> Work:
    return _forward(spec, False)


def _swapped(shape: Shape) -> Shape:
    return (shape[1], shape[0], *shape[2:])


def _backward(spec: OpSpec) -> Work:
    grad, x, weight = (tensor.shape for tensor in spec.inputs[:3])
    transposed = bool(spec.attribute("transposed", False))
    mask = spec.attribute("output_mask")
    wanted = mask if isinstance(mask, tuple) else (True, True, False)
    flops = 0.0
    if wanted[0]:
        flops += _counted(grad, weight, x, not transposed)
    if wanted[1]:
        data, window = (grad, x) if transposed else (x, grad)
        flops += _counted(_swapped(data), _swapped(window), _swapped(weight), False)
    gemms = int(bool(wanted[0])) + int(bool(wanted[1]))
    return _work(spec, flops, x, weight, grad, transposed, _groups(spec), gemms)


COUNTERS: dict[str, Counter] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "convolution_backward": _backward,
    "convolution_backward_overrideable": _backward,
    "_convolution_double_backward": _backward,
    **table(
        _plain,
        """
        cudnn_convolution cudnn_convolution_relu _slow_conv2d_forward slow_conv3d_forward thnn_conv2d
        conv1d conv2d conv3d _conv_depthwise2d conv_depthwise3d slow_conv_dilated2d slow_conv_dilated3d
        """,
    ),
    **table(
        _transposed,
        """
        cudnn_convolution_transpose slow_conv_transpose2d slow_conv_transpose3d conv_transpose1d
        conv_transpose2d conv_transpose3d
        """,
    ),
}
