"""Dense, scaled and grouped matrix products. FLOPs are 2·m·n·k, as PyTorch counts them."""

from __future__ import annotations

from dataclasses import replace
from math import gcd

from windtunnel.program.count.shapes import (
    Counter,
    arguments,
    first,
    last_dim,
    precision_of,
    product,
    read_bytes,
    result,
    written_bytes,
)
from windtunnel.program.op import DTYPE_BYTES, OpSpec, TensorSpec
from windtunnel.program.work import Family, Work

WHOLE_ACCESS_BYTES = 16
"""The widest access of one thread: rows that start at other multiples are moved in narrower ones."""


def gemm(
    spec: OpSpec,
    m: float,
    n: float,
    k: float,
    *,
    batch: float = 1,
    dtype: str,
    variant: str = "",
    matrices: tuple[TensorSpec, ...] = (),
) -> Work:
    """``batch`` products (m, k) × (k, n) with the traffic of ``spec``.

    ``matrices``: what is read and written by rows; where these start at less than ``WHOLE_ACCESS_BYTES`` from each
    other, the dimension ``access`` says at how many bytes.
    """
    access = min((_access_bytes(matrix) for matrix in matrices), default=WHOLE_ACCESS_BYTES)
    return Work(
        family=Family.GEMM,
        flops=2.0 * m * n * k * batch,
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        precision=precision_of(dtype),
        variant=variant,
        dims=(
            ("m", float(m)),
            ("n", float(n)),
            ("k", float(k)),
            ("batch", float(batch)),
            *((("access", float(access)),) if access < WHOLE_ACCESS_BYTES else ()),
        ),
    )


def _access_bytes(matrix: TensorSpec) -> int:
    """Bytes to which the rows (or columns) of a matrix are aligned."""
    if len(matrix.shape) < 2 or min(matrix.shape[-2:]) <= 1:
        return WHOLE_ACCESS_BYTES
    step = max(matrix.stride[-2:]) if matrix.stride else matrix.shape[-1]
    return gcd(int(step * DTYPE_BYTES[matrix.dtype]), WHOLE_ACCESS_BYTES)


def grouped(
    spec: OpSpec, tokens: float, n: float, k: float, experts: float, *, top_k: float = 1, variant: str = ""
) -> Work:
    """One product per expert over ``tokens`` rows in all."""
    return Work(
        family=Family.GROUPED_GEMM,
        flops=2.0 * tokens * n * k,
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        precision=precision_of(first(spec).dtype),
        variant=variant,
        dims=(
            ("tokens", float(tokens)),
            ("n", float(n)),
            ("k", float(k)),
            ("experts", float(experts)),
            ("top_k", float(top_k)),
        ),
    )


def _product_of(spec: OpSpec, a: TensorSpec, b: TensorSpec) -> Work:
    return gemm(spec, a.shape[0], b.shape[1], a.shape[1], dtype=a.dtype, matrices=(a, b, result(spec)))


def _mm(spec: OpSpec) -> Work:
    a, b = spec.inputs[:2]
    return _product_of(spec, a, b)


def _addmm(spec: OpSpec) -> Work:
    a, b = spec.inputs[1:3]
    return _product_of(spec, a, b)


def _batched(spec: OpSpec, a: TensorSpec, b: TensorSpec) -> Work:
    return gemm(spec, a.shape[1], b.shape[2], a.shape[2], batch=a.shape[0], dtype=a.dtype)


def _bmm(spec: OpSpec) -> Work:
    a, b = spec.inputs[:2]
    return _batched(spec, a, b)


def _baddbmm(spec: OpSpec) -> Work:
    a, b = spec.inputs[1:3]
    return _batched(spec, a, b)


def _addbmm(spec: OpSpec) -> Work:
    a, b = spec.inputs[1:3]  # the products of all batches are summed: one product with k · batch
    return gemm(spec, a.shape[1], b.shape[2], a.shape[2] * a.shape[0], dtype=a.dtype)


def _mv(spec: OpSpec) -> Work:
    matrix, _ = spec.inputs[-2:] if len(arguments(spec)) == len(spec.inputs) else arguments(spec)[-2:]
    return gemm(spec, matrix.shape[0], 1, matrix.shape[1], dtype=matrix.dtype)


def _dot(spec: OpSpec) -> Work:
    return gemm(spec, 1, 1, spec.inputs[0].numel, dtype=spec.inputs[0].dtype)


def _outer(spec: OpSpec) -> Work:
    a, b = arguments(spec)[-2:]
    return gemm(spec, a.numel, b.numel, 1, dtype=a.dtype)


def _linear(spec: OpSpec) -> Work:
    x, weight = spec.inputs[:2]
    k = last_dim(x)
    rows, columns = x.numel // k if k else 0, weight.numel // last_dim(weight)
    return gemm(spec, rows, columns, k, dtype=x.dtype, matrices=(weight, result(spec)))


def _packed(spec: OpSpec) -> Work:
    """Weights packed below a byte: their shape says nothing, the result does."""
    x, out = spec.inputs[0], result(spec)
    k = last_dim(x)
    return gemm(spec, x.numel // k if k else 0, last_dim(out), k, dtype=x.dtype, variant="weight_only")


def _matmul(spec: OpSpec) -> Work:
    a, b = spec.inputs[:2]
    k = last_dim(a)
    m = a.shape[-2] if len(a.shape) > 1 else 1
    n = b.shape[-1] if len(b.shape) > 1 else 1
    out = result(spec).numel
    return gemm(spec, m, n, k, batch=out // (m * n) if m * n else 0, dtype=a.dtype)


def _scaled_mm(spec: OpSpec) -> Work:
    a, b = spec.inputs[:2]
    scale = spec.inputs[2] if len(spec.inputs) > 2 else TensorSpec("float32", (1,))
    return gemm(spec, a.shape[0], b.shape[1], a.shape[1], dtype=a.dtype, variant=_scaling(scale, a.shape[0]))


def _scaling(scale: TensorSpec, rows: int) -> str:
    if scale.numel <= 1:
        return "tensorwise"
    return "rowwise" if scale.numel == rows else "block128"


def _grouped_mm(spec: OpSpec) -> Work:
    a, b = spec.inputs[:2]
    scaled = "scaled" if "scaled" in spec.name else ""
    if len(a.shape) == 2 and len(b.shape) == 3:  # tokens sorted by expert, one weight each
        return grouped(spec, a.shape[0], b.shape[2], a.shape[1], b.shape[0], variant=scaled)
    if len(a.shape) == 2:  # gradient of the weights: each expert sums over its own tokens
        experts = result(spec).shape[0]
        return grouped(spec, a.shape[1], b.shape[1], a.shape[0], experts, variant=scaled)
    if len(b.shape) == 2:
        return grouped(spec, b.shape[1], a.shape[1], a.shape[2], a.shape[0], variant=scaled)
    return _batched(spec, a, b)


def _grouped_mm_backward(spec: OpSpec) -> Work:
    """Input and weight gradients of one grouped product: inputs (t, k), (e, k, n), ends, (t, n)."""
    forward = _grouped_mm(spec)
    return replace(
        forward,
        flops=2 * forward.flops,
        kernels=2,
        dims=tuple((name, 2 * size if name == "tokens" else size) for name, size in forward.dims),
    )


def _foreach_mm(spec: OpSpec) -> Work:
    half = len(spec.inputs) // 2
    pairs = list(zip(spec.inputs[:half], spec.inputs[half:], strict=False))
    flops = sum(2.0 * product(a.shape) * b.shape[1] for a, b in pairs)
    a, b = pairs[0]
    single = _product_of(spec, a, b)
    batch = flops / single.flops if single.flops else 0.0
    return gemm(spec, a.shape[0], b.shape[1], a.shape[1], batch=batch, dtype=a.dtype)


COUNTERS: dict[str, Counter] = {
    "mm": _mm,
    "_int_mm": _mm,
    "_sparse_mm": _mm,
    "_weight_int8pack_mm": _linear,
    "_weight_int4pack_mm": _packed,
    "_weight_int4pack_mm_with_scales_and_zeros": _packed,
    "addmm": _addmm,
    "_addmm_activation": _addmm,
    "_sparse_addmm": _addmm,
    "bmm": _bmm,
    "baddbmm": _baddbmm,
    "addbmm": _addbmm,
    "mv": _mv,
    "addmv": _mv,
    "dot": _dot,
    "vdot": _dot,
    "addr": _outer,
    "outer": _outer,
    "ger": _outer,
    "linear": _linear,
    "matmul": _matmul,
    "_scaled_mm": _scaled_mm,
    "_scaled_mm_v2": _scaled_mm,
    "_grouped_mm": _grouped_mm,
    "_grouped_mm_backward": _grouped_mm_backward,
    "_scaled_grouped_mm": _grouped_mm,
    "_scaled_grouped_mm_v2": _grouped_mm,
    "_foreach_mm": _foreach_mm,
}
