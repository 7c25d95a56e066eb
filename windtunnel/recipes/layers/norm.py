"""Norms, residual additions and activations: memory-bound pieces on the rank's share of the tokens."""

from __future__ import annotations

from windtunnel.program import kernels
from windtunnel.program.op import OpSpec
from windtunnel.recipes.piece import Piece, op, tensor
from windtunnel.specs.model import Norm


def norm_piece(
    name: str, dtype: str, rows: int, columns: int, norm: Norm = Norm.RMS, fused: bool = True
) -> Piece:
    """RMSNorm or LayerNorm with weights. LayerNorm is one kernel in eager PyTorch too, RMSNorm is not."""
    if not fused and norm is not Norm.LAYER:
        return _eager_rms_norm(name, dtype, rows, columns, norm is Norm.CENTRED)
    x, w, mean = tensor(dtype, rows, columns), tensor(dtype, columns), tensor("float32", rows, 1)
    layer_norm = norm is Norm.LAYER
    if layer_norm:
        forward = op("aten.native_layer_norm", (x, w, w), (x, mean, mean), normalized_shape=(columns,))
        backward = op("aten.native_layer_norm_backward", (x, x, mean, mean, w, w), (x, w, w))
    else:
        forward = op(kernels.RMS_NORM, (x, w), (x, mean))
        backward = op(kernels.RMS_NORM_BACKWARD, (x, x, w, mean), (x, w))
    return Piece(name, (forward,), (backward,), parameters=columns * (2 if layer_norm else 1))


def _eager_rms_norm(name: str, dtype: str, rows: int, columns: int, centred: bool) -> Piece:
    """To FP32, square, mean, rsqrt, scale, back, weight; and what autograd makes of it. ``centred``: weighed so."""
    x, wide, mean = tensor(dtype, rows, columns), tensor("float32", rows, columns), tensor("float32", rows, 1)
    w = tensor("float32" if centred else dtype, columns)
    y = wide if centred else x
    weigh = op("aten.mul.Tensor", (y, w), (y,))
    up, down = op("aten._to_copy", (x,), (wide,)), op("aten._to_copy", (wide,), (x,))
    scale = op("aten.mul.Tensor", (wide, mean), (wide,))
    product = op("aten.mul.Tensor", (wide, wide), (wide,))
    reduce = op("aten.sum.dim_IntList", (wide,), (mean,))
    forward = (
        up,
        op("aten.pow.Tensor_Scalar", (wide,), (wide,)),
        op("aten.mean.dim", (wide,), (mean,)),
        op("aten.rsqrt", (mean,), (mean,)),
        scale,
        *((weigh, down) if centred else (down, weigh)),
    )
    weighed = (
        op("aten.mul.Tensor", (y, y), (y,)),
        op("aten.sum.dim_IntList", (y,), (w,)),
        op("aten.mul.Tensor", (y, w), (y,)),
    )
    backward = (
        *((up, *weighed) if centred else (*weighed, up)),
        product,  # of the inverse root
        reduce,
        scale,
        op("aten.div.Scalar", (mean,), (wide,)),  # the mean's gradient, spread over the row
        op("aten.pow.Tensor_Scalar", (wide,), (wide,)),
        op("aten.mul.Scalar", (wide,), (wide,)),
        product,
        op("aten.add.Tensor", (wide, wide), (wide,)),
        down,
    )
    return Piece(name, forward, backward, parameters=columns)


def residual_piece(dtype: str, rows: int, columns: int, drops: bool = False) -> Piece:
    """The residual addition forward, and the sum of the two gradients backward.

    ``drops``: dropout in front of it, one kernel with bias and addition forward (Megatron-LM's
    ``bias_dropout_add_fused_train``), one for the masked gradient backward.
    """
    x = tensor(dtype, rows, columns)
    add = op("aten.add.Tensor", (x, x), (x,))
    if not drops:
        return Piece("residual", (add,), (add,))
    mask = tensor("bool", rows, columns)
    forward = op(kernels.FUSED, (x, x), (x, mask), ops=5)
    masked = op("aten.native_dropout_backward", (x, mask), (x,))
    return Piece("residual", (forward,), (add, masked))


def activation_piece(dtype: str, rows: int, width: int, gated: bool, fused: bool) -> Piece:
    """SwiGLU, or GELU where there is no gate."""
    x = tensor(dtype, rows, width)
    if not gated:
        forward = (op("aten.gelu", (x,), (x,)),)
        return Piece("activation", forward, (op("aten.gelu_backward", (x, x), (x,)),))
    if fused:
        both = tensor(dtype, rows, 2 * width)
        forward = (op(kernels.SWIGLU, (both,), (x,)),)
        return Piece("activation", forward, (op(kernels.SWIGLU_BACKWARD, (x, both), (both,)),))
    eager: tuple[OpSpec, ...] = (op("aten.silu", (x,), (x,)), op("aten.mul.Tensor", (x, x), (x,)))
    product = op("aten.mul.Tensor", (x, x), (x,))
    backward = (product, product, op("aten.silu_backward", (x, x), (x,)))
    return Piece("activation", eager, backward)
