"""Reductions, losses, pooling, scans and sorts: work along rows."""

from __future__ import annotations

import math

from windtunnel.program.count.normalisation import SOFTMAX_OPS
from windtunnel.program.count.shapes import (
    ARITHMETIC,
    Counter,
    dimension,
    first,
    integers,
    nbytes,
    number,
    product,
    read_bytes,
    result,
    rows_columns,
    rows_of,
    streaming,
    table,
    written_bytes,
)
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Family, Work


def reduction(spec: OpSpec, ops: float = ARITHMETIC, kernels: int = 1) -> Work:
    """Many elements into few: each result is one row."""
    x = first(spec)
    rows = max(1, result(spec).numel)
    return streaming(
        spec, Family.REDUCTION, ops * x.numel, kernels=kernels, dims=rows_columns(rows, x.numel / rows)
    )


def _reduction(spec: OpSpec) -> Work:
    return reduction(spec)


def _moments(spec: OpSpec) -> Work:
    return reduction(spec, 4 * ARITHMETIC)


def _exponentials(spec: OpSpec) -> Work:
    return reduction(spec, SOFTMAX_OPS)


def _nll_loss(spec: OpSpec) -> Work:
    """Reads one log-probability of each row, not the whole matrix."""
    log_probabilities, target = spec.inputs[:2]
    picked = target.numel * log_probabilities.nbytes / max(1, log_probabilities.numel)
    return streaming(
        spec,
        Family.REDUCTION,
        ARITHMETIC * target.numel,
        bytes_read=picked + nbytes((target,)),
        dims=rows_columns(1, target.numel),
    )


def _nll_loss_backward(spec: OpSpec) -> Work:
    target = spec.inputs[2] if len(spec.inputs) > 2 else first(spec)
    out = result(spec)  # zeroed as a whole, which is where the time goes; then one element a row
    return streaming(
        spec,
        Family.POINTWISE,
        ARITHMETIC * target.numel,
        bytes_read=nbytes((target,)),
        kernels=2,
        dims=(("elements", float(out.numel)), ("ops", 1.0)),
    )


def _pooling(spec: OpSpec) -> Work:
    """Each output is a row as long as the window."""
    out = result(spec)
    window = product(integers(spec, "kernel_size")) if integers(spec, "kernel_size") else 0
    if not window:
        window = max(1, first(spec).numel // max(1, out.numel))
    return streaming(
        spec, Family.REDUCTION, ARITHMETIC * out.numel * window, dims=rows_columns(out.numel, window)
    )


def _pooling_backward(spec: OpSpec) -> Work:
    return streaming(
        spec, Family.REDUCTION, ARITHMETIC * first(spec).numel, dims=rows_columns(result(spec).numel, 1)
    )


def _scan(spec: OpSpec) -> Work:
    x = first(spec)
    columns = dimension(x, number(spec, "dim", -1))
    return streaming(spec, Family.SCAN, ARITHMETIC * x.numel, dims=rows_columns(rows_of(x, columns), columns))


def _compaction(spec: OpSpec) -> Work:
    """Count, scan, write: what ``nonzero`` and boolean selection launch."""
    x = first(spec)
    return streaming(
        spec,
        Family.SCAN,
        2 * ARITHMETIC * x.numel,
        bytes_read=2 * read_bytes(spec),
        kernels=3,
        dims=rows_columns(1, x.numel),
    )


def _sort(spec: OpSpec) -> Work:
    x = first(spec)
    columns = dimension(x, number(spec, "dim", -1))
    rows = rows_of(x, columns)
    comparisons = x.numel * max(1.0, math.log2(columns)) if columns else 0.0
    return streaming(spec, Family.SORT, ARITHMETIC * comparisons, dims=rows_columns(rows, columns))


def _sort_all(spec: OpSpec) -> Work:
    x = first(spec)
    comparisons = x.numel * math.log2(max(2, x.numel))
    return streaming(
        spec,
        Family.SORT,
        ARITHMETIC * comparisons,
        bytes_read=2 * read_bytes(spec),
        bytes_written=written_bytes(spec),
        kernels=4,
        dims=rows_columns(1, x.numel),
    )


COUNTERS: dict[str, Counter] = {
    **table(
        _reduction,
        """
        sum nansum mean nanmean amax amin _aminmax aminmax max min argmax argmin all any prod
        count_nonzero norm linalg_vector_norm linalg__powsum native_norm trace
        value_selecting_reduction_backward sum_to_size segment_reduce _segment_reduce_backward
        _is_all_true _is_any_true _amp_foreach_non_finite_check_and_unscale hash_tensor allclose
        multi_margin_loss multi_margin_loss_backward multilabel_margin_loss_forward
        multilabel_margin_loss_backward dist
        """,
    ),
    **table(
        _moments,
        """
        std std_mean var var_mean
        """,
    ),
    **table(
        _exponentials,
        """
        logsumexp special_logsumexp
        """,
    ),
    **table(
        _nll_loss,
        """
        nll_loss nll_loss_forward nll_loss2d_forward nll_loss2d
        """,
    ),
    **table(
        _nll_loss_backward,
        """
        nll_loss_backward nll_loss2d_backward
        """,
    ),
    **table(
        _pooling,
        """
        avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices
        max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
        adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d im2col
        """,
    ),
    **table(
        _pooling_backward,
        """
        avg_pool2d_backward avg_pool3d_backward max_pool2d_backward max_pool2d_with_indices_backward
        max_pool3d_with_indices_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward
        adaptive_avg_pool3d_backward adaptive_max_pool2d_backward adaptive_max_pool3d_backward
        fractional_max_pool2d_backward fractional_max_pool3d_backward col2im
        """,
    ),
    **table(
        _scan,
        """
        cumsum cumprod cummax cummin _cummax_helper _cummin_helper logcumsumexp _logcumsumexp
        """,
    ),
    **table(
        _compaction,
        """
        nonzero nonzero_static argwhere masked_select masked_scatter_backward
        """,
    ),
    **table(
        _sort,
        """
        sort topk kthvalue argsort msort median nanmedian mode quantile
        """,
    ),
    **table(
        _sort_all,
        """
        _unique _unique2 unique_dim unique_consecutive unique_dim_consecutive randperm bincount histc
        histogram
        """,
    ),
}
