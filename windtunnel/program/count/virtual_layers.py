"""Virtual kernels that work on each token alone: expert products, norms, rotary, gates, losses, fusions."""

from __future__ import annotations

from windtunnel.program import kernels as k
from windtunnel.program.count.matmul import gemm, grouped
from windtunnel.program.count.normalisation import (
    NORM_BACKWARD_OPS,
    NORM_OPS,
    SOFTMAX_BACKWARD_OPS,
    SOFTMAX_OPS,
    norm,
    softmax,
)
from windtunnel.program.count.pointwise import ops_of
from windtunnel.program.count.shapes import (
    ARITHMETIC,
    SPECIAL,
    Counter,
    first,
    last_dim,
    nbytes,
    number,
    read_bytes,
    result,
    rows_columns,
    streaming,
    vector_precision,
    written_bytes,
)
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Family, Work

ROTARY_OPS = 3 * ARITHMETIC  # two multiplications and an addition
SWIGLU_OPS = SPECIAL + 3 * ARITHMETIC
SWIGLU_BACKWARD_OPS = SPECIAL + 8 * ARITHMETIC


def _grouped_gemm(spec: OpSpec) -> Work:
    a, b = spec.inputs[:2]
    out = result(spec)
    top_k = number(spec, "top_k", 1.0)
    # blocks of 128 are scaled outside the matrix units; blocks of 32 (MXFP8) inside them, whole tensors at the end
    by_block = spec.base_name == k.SCALED_GROUPED_GEMM and int(number(spec, "block", 128)) == 128
    scaled = "block128" if by_block else _narrower(a, b)
    if len(out.shape) == 3:  # gradient of the weights: (experts, k, n) from rows (tokens, k) and (tokens, n)
        return grouped(
            spec, a.shape[0], out.shape[2], out.shape[1], out.shape[0], top_k=top_k, variant="weight_gradient"
        )
    return grouped(
        spec, a.numel // last_dim(a), last_dim(out), last_dim(a), b.shape[0], top_k=top_k, variant=scaled
    )


def _narrower(a: TensorSpec, b: TensorSpec) -> str:
    """The variant of products whose weights have four bits and their rows more."""
    if not b.dtype.startswith("float4") or a.dtype.startswith("float4"):
        return ""
    return "w4a8" if a.dtype.startswith("float8") else "int4_wo"


def _block_scaled_gemm(spec: OpSpec) -> Work:
    a, out = spec.inputs[0], result(spec)
    block = int(number(spec, "block", 128))
    rows = a.numel // last_dim(a)
    return gemm(spec, rows, last_dim(out), last_dim(a), dtype=a.dtype, variant=f"block{block}")


def _rms_norm(spec: OpSpec) -> Work:
    x = first(spec)
    return norm(spec, x, last_dim(x))


def _rms_norm_backward(spec: OpSpec) -> Work:
    x = spec.inputs[1]
    return norm(spec, x, last_dim(x), ops=NORM_BACKWARD_OPS, kernels=2)


def _add_rms_norm(spec: OpSpec) -> Work:
    x = first(spec)
    return norm(spec, x, last_dim(x), ops=NORM_OPS + ARITHMETIC)


def _rotary(spec: OpSpec) -> Work:
    elements = float(sum(tensor.numel for tensor in spec.outputs) or first(spec).numel)
    dims = (("elements", elements), ("ops", ROTARY_OPS))
    return streaming(spec, Family.POINTWISE, ROTARY_OPS * elements, dims=dims)


def _swiglu(spec: OpSpec) -> Work:
    elements = float(result(spec).numel)
    return streaming(
        spec,
        Family.POINTWISE,
        SWIGLU_OPS * elements,
        dims=(("elements", elements), ("ops", SWIGLU_OPS)),
    )


def _swiglu_backward(spec: OpSpec) -> Work:
    elements = float(first(spec).numel)
    return streaming(
        spec,
        Family.POINTWISE,
        SWIGLU_BACKWARD_OPS * elements,
        dims=(("elements", elements), ("ops", SWIGLU_BACKWARD_OPS)),
    )


def _cross_entropy(spec: OpSpec) -> Work:
    logits = first(spec)
    return softmax(spec, logits, last_dim(logits), SOFTMAX_OPS)


def _cross_entropy_backward(spec: OpSpec) -> Work:
    logits = spec.inputs[1]
    return softmax(spec, logits, last_dim(logits), SOFTMAX_BACKWARD_OPS + SPECIAL)


def _permute(spec: OpSpec) -> Work:
    rows = result(spec)
    return streaming(
        spec,
        Family.POINTWISE,  # rows of kilobytes stream: no sector is read in part
        bytes_read=nbytes((rows,)) + nbytes(spec.inputs[1:]),
        dims=(("elements", rows.numel), ("ops", 0)),
    )


def _unpermute(spec: OpSpec) -> Work:
    rows = first(spec)
    return streaming(
        spec,
        Family.POINTWISE,
        2 * ARITHMETIC * rows.numel,
        dims=(("elements", rows.numel), ("ops", 2 * ARITHMETIC)),
    )


_GATHERS = ("embedding", "index", "gather", "take")


def _fused(spec: OpSpec) -> Work:
    """One pass over what enters and leaves the region, all its operations on each element."""
    operations = spec.attribute("names")
    inside = [str(name) for name in operations] if isinstance(operations, tuple) else []
    ops = sum(ops_of(name) for name in inside) if inside else number(spec, "ops", 1.0)
    read = _gathered_bytes(spec) if any(name.startswith(_GATHERS) for name in inside) else read_bytes(spec)
    if number(spec, "columns"):
        rows, columns = number(spec, "rows", 1.0), number(spec, "columns")
        family, elements, dims = Family.REDUCTION, rows * columns, rows_columns(rows, columns)
    else:
        family = Family.POINTWISE
        elements = float(max((t.numel for t in (*spec.inputs, *spec.outputs)), default=0))
        if read < read_bytes(spec):
            elements = float(max((t.numel for t in spec.outputs), default=0))
        dims = (("elements", elements), ("ops", ops))
    return streaming(spec, family, ops * elements, bytes_read=read, variant="fused", dims=dims)


def _gathered_bytes(spec: OpSpec) -> float:
    """Reads of a region that gathers: of a table larger than any result, as much as a result holds."""
    most = max((tensor.numel for tensor in spec.outputs), default=0)
    return sum(nbytes((t,)) * min(1.0, most / t.numel) for t in spec.inputs if t.numel)


def _host_copy(spec: OpSpec) -> Work:
    return Work(
        family=Family.HOST_COPY,
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        variant="pinned" if spec.attribute("pinned") is True else "pageable",
    )


def _custom(spec: OpSpec) -> Work:
    precision = spec.attribute("precision")
    return Work(
        family=Family.UNKNOWN,
        flops=number(spec, "flops"),
        vector_flops=number(spec, "vector_flops"),
        bytes_read=number(spec, "bytes_read", read_bytes(spec)),
        bytes_written=number(spec, "bytes_written", written_bytes(spec)),
        precision=precision if isinstance(precision, str) else vector_precision(spec.inputs),
        kernels=max(1, int(number(spec, "kernels", 1))),
        variant=str(spec.attribute("kernel", "")),
    )


COUNTERS: dict[str, Counter] = {
    k.GROUPED_GEMM: _grouped_gemm,
    k.SCALED_GROUPED_GEMM: _grouped_gemm,
    k.BLOCK_SCALED_GEMM: _block_scaled_gemm,
    k.RMS_NORM: _rms_norm,
    k.RMS_NORM_BACKWARD: _rms_norm_backward,
    k.FUSED_ADD_RMS_NORM: _add_rms_norm,
    k.ROTARY: _rotary,
    k.ROTARY_BACKWARD: _rotary,
    k.SWIGLU: _swiglu,
    k.SWIGLU_BACKWARD: _swiglu_backward,
    k.CROSS_ENTROPY: _cross_entropy,
    k.CROSS_ENTROPY_BACKWARD: _cross_entropy_backward,
    k.MOE_PERMUTE: _permute,
    k.MOE_UNPERMUTE: _unpermute,
    k.FUSED: _fused,
    k.HOST_COPY: _host_copy,
    k.CUSTOM: _custom,
}
