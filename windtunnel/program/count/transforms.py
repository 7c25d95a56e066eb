"""FFT, linear algebra and distances. Operation counts are the textbook ones, each named where it stands."""

from __future__ import annotations

import math

from windtunnel.program.count.shapes import (
    ARITHMETIC,
    SPECIAL,
    Counter,
    first,
    integers,
    precision_of,
    read_bytes,
    result,
    streaming,
    table,
    written_bytes,
)
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Family, Work


def _fft(spec: OpSpec) -> Work:
    """5·n·log2 n real operations for a complex transform of n points (Cooley-Tukey), half for a real one."""
    x, out = first(spec), result(spec)
    axes = integers(spec, "dim") or (-1,)
    larger = x if x.numel >= out.numel else out
    length = math.prod(larger.shape[axis] for axis in axes if -len(larger.shape) <= axis < len(larger.shape))
    batch = larger.numel / length if length else 0.0
    real = not (x.dtype.startswith("complex") and out.dtype.startswith("complex"))
    points = 5.0 * length * math.log2(max(2, length)) * batch
    return streaming(
        spec,
        Family.FFT,
        points / 2 if real else points,
        kernels=len(axes),
        dims=(("batch", batch), ("length", float(length))),
    )


def _factorisation(spec: OpSpec, factor: float, variant: str) -> Work:
    """``factor`` · n² · m operations on each matrix (Golub and Van Loan, Matrix Computations)."""
    a = first(spec)
    m, n = (a.shape[-2], a.shape[-1]) if len(a.shape) > 1 else (a.numel, 1)
    batch = a.numel / (m * n) if m * n else 0.0
    small, large = min(m, n), max(m, n)
    return Work(
        family=Family.LINALG,
        flops=0.0,
        vector_flops=factor * small * small * large * batch,
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        precision=precision_of(a.dtype),
        kernels=max(1, small // 32),  # a blocked factorisation launches for each panel of 32 columns
        variant=variant,
        dims=(("m", float(m)), ("n", float(n)), ("k", float(small)), ("batch", batch)),
    )


def _cholesky(spec: OpSpec) -> Work:
    return _factorisation(spec, 1 / 3, "cholesky")


def _lu(spec: OpSpec) -> Work:
    return _factorisation(spec, 2 / 3, "lu")


def _inverse(spec: OpSpec) -> Work:
    return _factorisation(spec, 2.0, "inverse")


def _qr(spec: OpSpec) -> Work:
    return _factorisation(spec, 2.0, "qr")


def _eigen(spec: OpSpec) -> Work:
    return _factorisation(spec, 9.0, "eigen")  # symmetric, with vectors


def _svd(spec: OpSpec) -> Work:
    return _factorisation(spec, 22.0, "svd")  # with both factors


def _triangular_solve(spec: OpSpec) -> Work:
    a, b = spec.inputs[:2]
    n, columns = a.shape[-1], b.shape[-1] if len(b.shape) > 1 else 1
    batch = a.numel / (n * n) if n else 0.0
    return Work(
        family=Family.LINALG,
        vector_flops=float(n) * n * columns * batch,
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        precision=precision_of(a.dtype),
        variant="triangular_solve",
        dims=(("m", float(n)), ("n", float(columns)), ("k", float(n)), ("batch", batch)),
    )


def _distances(spec: OpSpec) -> Work:
    """Every pair of rows: difference, power and sum over the columns."""
    x, out = first(spec), result(spec)
    columns = x.shape[-1] if x.shape else 1
    ops = out.numel * (3.0 * ARITHMETIC * columns + SPECIAL)
    return streaming(
        spec,
        Family.REDUCTION,
        ops,
        dims=(("rows", float(out.numel)), ("columns", float(columns))),
    )


def _cross(spec: OpSpec) -> Work:
    return streaming(
        spec,
        Family.POINTWISE,
        5.0 * ARITHMETIC * result(spec).numel,
        dims=(("elements", float(result(spec).numel)), ("ops", 5.0)),
    )


COUNTERS: dict[str, Counter] = {
    **table(
        _fft,
        """
        _fft_c2c _fft_r2c _fft_c2r
        """,
    ),
    **table(
        _cholesky,
        """
        linalg_cholesky_ex linalg_cholesky cholesky
        """,
    ),
    **table(
        _lu,
        """
        linalg_lu_factor_ex linalg_lu_factor linalg_lu _lu_with_info _linalg_det _linalg_slogdet
        _linalg_solve_ex linalg_ldl_factor_ex
        """,
    ),
    **table(
        _inverse,
        """
        linalg_inv_ex cholesky_inverse linalg_matrix_exp
        """,
    ),
    **table(
        _qr,
        """
        linalg_qr geqrf linalg_householder_product ormqr linalg_lstsq
        """,
    ),
    **table(
        _eigen,
        """
        _linalg_eigh linalg_eig _linalg_eigvals linalg_eigvals linalg_eigh
        """,
    ),
    **table(
        _svd,
        """
        _linalg_svd svd linalg_pinv
        """,
    ),
    **table(
        _triangular_solve,
        """
        linalg_solve_triangular triangular_solve cholesky_solve _cholesky_solve_helper linalg_lu_solve
        linalg_ldl_solve
        """,
    ),
    **table(
        _distances,
        """
        _cdist_forward _cdist_backward _pdist_forward _euclidean_dist
        """,
    ),
    **table(
        _cross,
        """
        linalg_cross cross
        """,
    ),
}
