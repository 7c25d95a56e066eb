"""Normalisation and softmax: statistics over rows, applied in the same pass."""

from __future__ import annotations

from windtunnel.program.count.shapes import (
    ARITHMETIC,
    SPECIAL,
    Counter,
    dimension,
    first,
    integers,
    last_dim,
    number,
    product,
    rows_columns,
    rows_of,
    streaming,
    table,
)
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Family, Work

NORM_OPS = 6 * ARITHMETIC  # mean, variance, subtract, scale, weight, bias
NORM_BACKWARD_OPS = 10 * ARITHMETIC
SOFTMAX_OPS = 4 * ARITHMETIC + SPECIAL  # maximum, subtract, exponential, sum, divide
SOFTMAX_BACKWARD_OPS = 4 * ARITHMETIC


def norm(spec: OpSpec, x: TensorSpec, columns: int, *, ops: float = NORM_OPS, kernels: int = 1) -> Work:
    """Statistics over rows of ``columns`` elements and one pass that applies them."""
    dims = rows_columns(rows_of(x, columns), columns)
    return streaming(spec, Family.NORM, ops * x.numel, kernels=kernels, dims=dims)


def _normalised_columns(spec: OpSpec, x: TensorSpec) -> int:
    return product(integers(spec, "normalized_shape")) if integers(spec, "normalized_shape") else last_dim(x)


def _layer_norm(spec: OpSpec) -> Work:
    x = first(spec)
    return norm(spec, x, _normalised_columns(spec, x))


def _layer_norm_backward(spec: OpSpec) -> Work:
    x = spec.inputs[1]  # the gradient of the input, then the two-stage sums for weight and bias
    return norm(spec, x, _normalised_columns(spec, x), ops=NORM_BACKWARD_OPS, kernels=2)


def _channels(spec: OpSpec, x: TensorSpec, ops: float) -> Work:
    channels = dimension(x, 1)
    return norm(spec, x, x.numel // channels if channels else 0, ops=ops, kernels=2)


def _batch_norm(spec: OpSpec) -> Work:
    return _channels(spec, first(spec), NORM_OPS)


def _batch_norm_inference(spec: OpSpec) -> Work:
    x = first(spec)
    channels = dimension(x, 1)
    return norm(spec, x, x.numel // channels if channels else 0, ops=4 * ARITHMETIC)


def _batch_norm_backward(spec: OpSpec) -> Work:
    return _channels(spec, spec.inputs[1], NORM_BACKWARD_OPS)


def _group_norm(spec: OpSpec) -> Work:
    x = first(spec)
    groups = number(spec, "group", number(spec, "num_groups", 1))
    rows = dimension(x, 0) * max(1, int(groups))
    return norm(spec, x, x.numel // rows if rows else 0, kernels=2)


def _group_norm_backward(spec: OpSpec) -> Work:
    x = spec.inputs[1]
    rows = dimension(x, 0) * max(1, int(number(spec, "group", 1)))
    return norm(spec, x, x.numel // rows if rows else 0, ops=NORM_BACKWARD_OPS, kernels=3)


def softmax(spec: OpSpec, x: TensorSpec, columns: int, ops: float = SOFTMAX_OPS) -> Work:
    """Softmax over rows of ``columns`` elements."""
    dims = rows_columns(rows_of(x, columns), columns)
    return streaming(spec, Family.SOFTMAX, ops * x.numel, dims=dims)


def _softmax(spec: OpSpec) -> Work:
    x = first(spec)
    return softmax(spec, x, dimension(x, number(spec, "dim", -1)))


def _softmax_backward(spec: OpSpec) -> Work:
    x = first(spec)
    return softmax(spec, x, dimension(x, number(spec, "dim", -1)), SOFTMAX_BACKWARD_OPS)


COUNTERS: dict[str, Counter] = {
    **table(
        _layer_norm,
        """
        native_layer_norm layer_norm renorm _weight_norm_interface _fused_rms_norm rms_norm
        """,
    ),
    **table(
        _layer_norm_backward,
        """
        native_layer_norm_backward _weight_norm_interface_backward _fused_rms_norm_backward
        """,
    ),
    **table(
        _batch_norm,
        """
        native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional cudnn_batch_norm
        _batch_norm_with_update _batch_norm_with_update_functional batch_norm instance_norm
        miopen_batch_norm batch_norm_stats batch_norm_update_stats batch_norm_gather_stats
        batch_norm_gather_stats_with_counts batch_norm_elemt
        """,
    ),
    **table(
        _batch_norm_inference,
        """
        _native_batch_norm_legit_no_training _batch_norm_no_update
        """,
    ),
    **table(
        _batch_norm_backward,
        """
        native_batch_norm_backward batch_norm_backward batch_norm_backward_reduce
        cudnn_batch_norm_backward miopen_batch_norm_backward
        """,
    ),
    **table(
        _group_norm,
        """
        native_group_norm group_norm
        """,
    ),
    "native_group_norm_backward": _group_norm_backward,
    **table(
        _softmax,
        """
        _softmax softmax _safe_softmax _log_softmax log_softmax _masked_softmax special_softmax
        special_log_softmax
        """,
    ),
    **table(
        _softmax_backward,
        """
        _softmax_backward_data _log_softmax_backward_data _masked_softmax_backward
        """,
    ),
}
