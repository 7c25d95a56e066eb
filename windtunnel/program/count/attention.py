"""Attention, forward and backward. FLOPs are those of full attention, also where it is causal.

Forward: 2·b·h·q·k·(qk_dim + v_dim). Backward: five products, 2·b·h·q·k·(3·qk_dim + 2·v_dim), the first of
them the scores computed again. These are PyTorch's own counts. Dims say ``causal`` and ``window`` (0: none);
``computed_fraction`` turns them into the part that a kernel which skips masked blocks computes.
"""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.program.count.shapes import (
    ARITHMETIC,
    SPECIAL,
    Counter,
    element_bytes,
    integers,
    number,
    precision_of,
    read_bytes,
    written_bytes,
)
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Family, Work

DECODE_QUERY_MAX = 16  # queries per sequence up to which the kernel that splits the keys is used
# per score: scale, subtract the maximum, exponential, sum, rescale
SOFTMAX_OPS = 4 * ARITHMETIC + SPECIAL


@dataclass(frozen=True, slots=True)
class Problem:
    """Sizes of one attention call; lengths are means over the batch where sequences differ."""

    batch: float
    heads: float
    kv_heads: float
    q_len: float
    kv_len: float
    qk_dim: float
    v_dim: float
    causal: bool = False
    window: float = 0.0

    @property
    def scores(self) -> float:
        """Elements of the score matrix, all heads and sequences."""
        return self.batch * self.heads * self.q_len * self.kv_len

    @property
    def dims(self) -> tuple[tuple[str, float], ...]:
        """The dims that ``Family.ATTENTION`` documents."""
        return (
            ("batch", self.batch),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("q_len", self.q_len),
            ("kv_len", self.kv_len),
            ("qk_dim", self.qk_dim),
            ("v_dim", self.v_dim),
            ("causal", float(self.causal)),
            ("window", self.window),
        )


def forward(spec: OpSpec, problem: Problem, *, density: float = 1.0, variant: str = "flash") -> Work:
    """Work of a forward pass; few queries over a longer cache make it a decode kernel."""
    flops = 2.0 * problem.scores * (problem.qk_dim + problem.v_dim) * density
    decode = problem.q_len <= DECODE_QUERY_MAX and problem.kv_len > problem.q_len and density == 1.0
    dims = problem.dims
    if decode:
        per_token = problem.kv_heads * (problem.qk_dim + problem.v_dim)
        cache_dtype = spec.inputs[1].dtype if len(spec.inputs) > 1 else spec.inputs[0].dtype
        dims = (*dims, ("kv_bytes_per_token", per_token * element_bytes(cache_dtype)))
    return Work(
        family=Family.DECODE_ATTENTION if decode else Family.ATTENTION,
        flops=flops,
        vector_flops=SOFTMAX_OPS * problem.scores * density,
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        precision=precision_of(spec.inputs[0].dtype),
        variant=variant,
        dims=dims,
    )


def backward(spec: OpSpec, problem: Problem, *, density: float = 1.0, variant: str = "flash") -> Work:
    """Work of a backward pass: row sums of grad·out first, then the five products."""
    return Work(
        family=Family.ATTENTION_BACKWARD,
        flops=2.0 * problem.scores * (3 * problem.qk_dim + 2 * problem.v_dim) * density,
        vector_flops=(SOFTMAX_OPS + 2 * ARITHMETIC) * problem.scores * density,
        bytes_read=read_bytes(spec),
        bytes_written=written_bytes(spec),
        precision=precision_of(spec.inputs[1].dtype),
        kernels=2,
        variant=variant,
        dims=problem.dims,
    )


def computed_fraction(work: Work) -> float:
    """The part of full attention that lies inside the causal triangle and the window.

    Triangles are aligned at the end (the last query sees every key). A square gives one half, the
    convention of Megatron-LM's causal MFU; one query over a long cache gives about one.
    """
    q_len, kv_len, window = work.dim("q_len"), work.dim("kv_len"), work.dim("window")
    if q_len <= 0 or kv_len <= 0 or not (work.dim("causal") or window):
        return 1.0
    seen = kv_len - min(q_len, kv_len) / 2 if work.dim("causal") else kv_len
    if window:
        seen = min(seen, window if work.dim("causal") else 2 * window)
    return min(1.0, seen / kv_len)


def heads_first(
    q: TensorSpec, k: TensorSpec, v: TensorSpec, *, causal: bool = False, window: float = 0.0
) -> Problem:
    """Sizes from (batch..., heads, length, dim) tensors, PyTorch's layout."""
    batch = 1.0
    for size in q.shape[:-3]:
        batch *= size
    heads, kv_heads = (t.shape[-3] if len(t.shape) > 2 else 1 for t in (q, k))
    return Problem(batch, heads, kv_heads, q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1], causal, window)


def length_first(
    q: TensorSpec, k: TensorSpec, v: TensorSpec, *, causal: bool = False, window: float = 0.0
) -> Problem:
    """Sizes from (batch, length, heads, dim) tensors, the layout of flash_attn."""
    return Problem(
        q.shape[0], q.shape[2], k.shape[2], q.shape[1], k.shape[1], q.shape[3], v.shape[3], causal, window
    )


def packed(spec: OpSpec, q: TensorSpec, k: TensorSpec, v: TensorSpec) -> Problem:
    """Sizes from (tokens, heads, dim) tensors holding sequences end to end.

    Lengths come from the attributes ``q_lens`` and ``kv_lens`` (one number a sequence); where they are
    absent every sequence is taken to be as long as ``max_q`` and ``max_k``, as PyTorch's counter does.
    """
    q_lens, kv_lens = integers(spec, "q_lens"), integers(spec, "kv_lens")
    causal, window = is_causal(spec), window_of(spec)
    if not q_lens:
        sequences = _sequences(spec)
        longest_q = number(spec, "max_q", q.shape[0] / sequences)
        longest_k = number(spec, "max_k", longest_q)
        q_lens = (int(longest_q),) * sequences
        kv_lens = (int(longest_k),) * sequences
    kv_lens = kv_lens or q_lens
    tokens = sum(q_lens)
    pairs = sum(a * b for a, b in zip(q_lens, kv_lens, strict=False))
    return Problem(
        len(q_lens),
        q.shape[-2],
        k.shape[-2],
        tokens / len(q_lens),
        pairs / tokens if tokens else 0.0,
        q.shape[-1],
        v.shape[-1],
        causal,
        window,
    )


def is_causal(spec: OpSpec) -> bool:
    """The flag under either of its names."""
    return bool(spec.attribute("is_causal") or spec.attribute("causal"))


def window_of(spec: OpSpec) -> float:
    """Keys that a query sees to its left, itself included; 0 without a window."""
    left = number(spec, "window_size_left", number(spec, "window", -1.0))
    return left + 1 if left >= 0 else 0.0


def _sequences(spec: OpSpec) -> int:
    for tensor in spec.inputs[3:]:
        if len(tensor.shape) == 1 and tensor.dtype in ("int32", "int64") and tensor.shape[0] > 1:
            return tensor.shape[0] - 1
    return 1


def _variant(spec: OpSpec) -> str:
    for name in ("efficient", "cudnn", "math"):
        if name in spec.name:
            return name
    return "flash"


def _sdpa(spec: OpSpec) -> Work:
    q, k, v = spec.inputs[:3]
    return forward(spec, heads_first(q, k, v, causal=is_causal(spec)), variant=_variant(spec))


def _sdpa_backward(spec: OpSpec) -> Work:
    q, k, v = spec.inputs[1:4]
    return backward(spec, heads_first(q, k, v, causal=is_causal(spec)), variant=_variant(spec))


def _flash(spec: OpSpec) -> Work:
    q, k, v = spec.inputs[:3]
    problem = packed(spec, q, k, v) if len(q.shape) == 3 else length_first(q, k, v, causal=is_causal(spec))
    return forward(spec, problem, variant=_variant(spec))


def _flash_backward(spec: OpSpec) -> Work:
    q, k, v = spec.inputs[1:4]
    problem = packed(spec, q, k, v) if len(q.shape) == 3 else length_first(q, k, v, causal=is_causal(spec))
    return backward(spec, problem, variant=_variant(spec))


COUNTERS: dict[str, Counter] = {
    "scaled_dot_product_attention": _sdpa,
    "_flash_attention_forward": _flash,
    "_flash_attention_backward": _flash_backward,
    "_efficient_attention_forward": _flash,
    "_efficient_attention_backward": _flash_backward,
    **{
        f"_scaled_dot_product_{kind}": _sdpa
        for kind in (
            "fused_attention_overrideable",
            "flash_attention",
            "flash_attention_for_cpu",
            "efficient_attention",
            "cudnn_attention",
            "attention_math",
        )
    },
    **{
        f"_scaled_dot_product_{kind}_backward": _sdpa_backward
        for kind in (
            "fused_attention_overrideable",
            "flash_attention",
            "flash_attention_for_cpu",
            "efficient_attention",
            "cudnn_attention",
        )
    },
}
