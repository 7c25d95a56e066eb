"""Virtual kernels that mix tokens: attention in its forms, Gated DeltaNet, short convolutions."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.program import kernels as k
from windtunnel.program.count.attention import (
    SOFTMAX_OPS,
    Problem,
    backward,
    forward,
    heads_first,
    is_causal,
    length_first,
    packed,
    window_of,
)
from windtunnel.program.count.shapes import (
    ARITHMETIC,
    Counter,
    element_bytes,
    integers,
    nbytes,
    number,
    precision_of,
    read_bytes,
    streaming,
    written_bytes,
)
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Family, Work

DELTA_CHUNK = 64  # tokens of a chunk in fla's kernels


def _dense(spec: OpSpec, q: TensorSpec, key: TensorSpec, v: TensorSpec) -> Problem:
    return length_first(q, key, v, causal=is_causal(spec), window=window_of(spec))


def _flash(spec: OpSpec) -> Work:
    q, key, v = spec.inputs[:3]
    return forward(spec, _dense(spec, q, key, v))


def _flash_backward(spec: OpSpec) -> Work:
    q, key, v = spec.inputs[1:4]
    return backward(spec, _dense(spec, q, key, v))


def _varlen(spec: OpSpec) -> Work:
    q, key, v = spec.inputs[:3]
    return forward(spec, packed(spec, q, key, v), variant="varlen")


def _varlen_backward(spec: OpSpec) -> Work:
    q, key, v = spec.inputs[1:4]
    return backward(spec, packed(spec, q, key, v), variant="varlen")


def _cached_tokens(spec: OpSpec, batch: int) -> float:
    """Tokens of the cache read, all sequences together."""
    lens = integers(spec, "kv_lens")
    return float(sum(lens)) if lens else batch * number(spec, "kv_len")


def _paged(spec: OpSpec) -> Work:
    q, pages, v_pages = spec.inputs[:3]
    batch, q_len, heads, dim = q.shape
    cached = _cached_tokens(spec, batch)
    kv_heads, v_dim = pages.shape[-2], v_pages.shape[-1]
    problem = Problem(
        batch, heads, kv_heads, q_len, cached / max(1, batch), dim, v_dim, is_causal(spec), window_of(spec)
    )
    seen = min(problem.kv_len, problem.window + q_len) if problem.window else problem.kv_len
    per_token = kv_heads * (dim + v_dim) * element_bytes(pages.dtype)
    cache_bytes = batch * seen * per_token
    narrow = pages.dtype.startswith("float8") and not q.dtype.startswith("float8")
    work = forward(spec, problem, variant="fp8_cache" if narrow else "paged")
    chunk = number(spec, "chunk", 0.0)
    dims = (*work.dims, ("chunk", chunk)) if chunk else work.dims
    return replace(work, bytes_read=nbytes((q, *spec.inputs[3:])) + cache_bytes, dims=dims)


def _mla_decode(spec: OpSpec) -> Work:
    q, cache = spec.inputs[:2]
    batch, q_len, heads, dim = q.shape
    cached = _cached_tokens(spec, batch)
    v_dim = spec.outputs[0].shape[-1] if spec.outputs else dim
    problem = Problem(batch, heads, 1, q_len, cached / max(1, batch), dim, v_dim, is_causal(spec))
    per_token = dim * element_bytes(cache.dtype)  # keys and values are one latent vector
    return Work(
        family=Family.DECODE_ATTENTION,
        flops=2.0 * problem.scores * (dim + v_dim),
        vector_flops=SOFTMAX_OPS * problem.scores,
        bytes_read=nbytes((q, *spec.inputs[2:])) + cached * per_token,
        bytes_written=written_bytes(spec),
        precision=precision_of(q.dtype),
        variant="mla_fp8_cache" if cache.dtype.startswith("float8") else "mla",
        dims=(*problem.dims, ("kv_bytes_per_token", per_token)),
    )


def _flex(spec: OpSpec) -> Work:
    q, key, v = spec.inputs[:3]
    return forward(spec, heads_first(q, key, v), density=number(spec, "density", 1.0), variant="flex")


def _flex_backward(spec: OpSpec) -> Work:
    q, key, v = spec.inputs[1:4]
    return backward(spec, heads_first(q, key, v), density=number(spec, "density", 1.0), variant="flex")


def _delta(spec: OpSpec, q: TensorSpec, v: TensorSpec, *, chunk: int, backward: bool) -> Work:
    """Gated delta rule (Yang et al. 2024, "Gated Delta Networks", the chunkwise form).

    For each token and value head in chunks of C: K·Kᵀ, Q·Kᵀ and T·K cost 2·C·dk each, T·V and the masked
    product with V 2·C·dv each, inverting the triangle C², and three products with the state 2·dk·dv each.
    One token at a time it is vector work: decay, two products with the state and its update, 7·dk·dv.
    Backward makes two products for each one of forward and computes forward's again: three times.
    """
    batch, length, heads, dv = v.shape
    dk = q.shape[-1]
    tokens = float(batch * length * heads)
    per_token = 2.0 * (3 * chunk * dk + 2 * chunk * dv + 3 * dk * dv) + chunk * chunk
    factor = 3.0 if backward else 1.0
    return Work(
        family=Family.DELTANET,
        flops=factor * tokens * per_token if chunk else 0.0,
        vector_flops=factor * tokens * (8.0 * (dk + dv) if chunk else 7.0 * dk * dv),
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        precision=precision_of(v.dtype),
        kernels=(10 if backward else 6) if chunk else 1,  # fla 0.4: one kernel a stage of the chunkwise form
        variant="chunk" if chunk else "recurrent",
        dims=(
            ("batch", float(batch)),
            ("heads", float(heads)),
            ("q_len", float(length)),
            ("qk_dim", float(dk)),
            ("v_dim", float(dv)),
            ("chunk", float(chunk)),
            ("backward", float(backward)),
        ),
    )


def _chunk(spec: OpSpec) -> int:
    return int(number(spec, "chunk", DELTA_CHUNK))


def _delta_chunk(spec: OpSpec) -> Work:
    return _delta(spec, spec.inputs[0], spec.inputs[2], chunk=_chunk(spec), backward=False)


def _delta_chunk_backward(spec: OpSpec) -> Work:
    q, key = spec.inputs[1:3]
    lead = 1 if q.shape == key.shape else 2  # a gradient of the final state may come before q
    return _delta(spec, spec.inputs[lead], spec.inputs[lead + 2], chunk=_chunk(spec), backward=True)


def _delta_recurrent(spec: OpSpec) -> Work:
    return _delta(spec, spec.inputs[0], spec.inputs[2], chunk=0, backward=False)


def _short_convolution(spec: OpSpec, x: TensorSpec, weight: TensorSpec, factor: float, kernels: int) -> Work:
    """A depthwise filter of a few taps: bound by memory, on the vector units."""
    ops = 2.0 * ARITHMETIC * weight.shape[-1] * factor
    dims = (("elements", float(x.numel)), ("ops", ops))
    return streaming(spec, Family.POINTWISE, ops * x.numel, kernels=kernels, dims=dims)


def _conv1d(spec: OpSpec) -> Work:
    return _short_convolution(spec, spec.inputs[0], spec.inputs[1], 1.0, 1)


def _conv1d_backward(spec: OpSpec) -> Work:
    return _short_convolution(spec, spec.inputs[1], spec.inputs[2], 2.0, 1)


def _conv1d_update(spec: OpSpec) -> Work:
    return _short_convolution(spec, spec.inputs[0], spec.inputs[2], 1.0, 1)


COUNTERS: dict[str, Counter] = {
    k.FLASH_ATTENTION: _flash,
    k.FLASH_ATTENTION_BACKWARD: _flash_backward,
    k.FLASH_ATTENTION_VARLEN: _varlen,
    k.FLASH_ATTENTION_VARLEN_BACKWARD: _varlen_backward,
    k.PAGED_ATTENTION: _paged,
    k.MLA_DECODE: _mla_decode,
    k.FLEX_ATTENTION: _flex,
    k.FLEX_ATTENTION_BACKWARD: _flex_backward,
    k.GATED_DELTA_CHUNK: _delta_chunk,
    k.GATED_DELTA_CHUNK_BACKWARD: _delta_chunk_backward,
    k.GATED_DELTA_RECURRENT: _delta_recurrent,
    k.CAUSAL_CONV1D: _conv1d,
    k.CAUSAL_CONV1D_BACKWARD: _conv1d_backward,
    k.CAUSAL_CONV1D_UPDATE: _conv1d_update,
}
