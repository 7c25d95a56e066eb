"""Which kernels stand in for which: libraries, precisions and variants that are another one's program or nearly so."""

from __future__ import annotations

from windtunnel.cost.fit import Fit

LIBRARIES = (
    "torch",
    "driver",
    "fa2",
    "fa2@vllm",
    "fa3@vllm",
    "flashmla",
    "fla",
    "cutlass@trtllm",
    "triton@vllm",
    "trtllm@trtllm-mla",
    "trtllm",
    "sglang",
    "deepgemm",
    "",
)
"""Order in which libraries stand in for each other when none is asked for: what PyTorch calls comes first."""

PYTORCH_KERNEL = {"attention": "fa2", "attention_backward": "fa2"}
"""What PyTorch calls where a chip was not measured with ``torch`` itself, borrowed from a relative if need be."""

PLAIN_VARIANTS = frozenset(
    {"flash", "efficient", "varlen", "paged", "flex", "tensorwise", "rowwise", "h2d", "d2h"}
)
"""Variants that are the plain kernel under another name."""

PRECISION_KIN = {
    "fp16": ("bf16",),
    "bf16": ("fp16",),
    "tf32": ("bf16",),
    "int8": ("fp8", "bf16"),
    "fp8": ("bf16",),
    "fp4": ("fp8", "bf16"),
    "fp64": ("fp32",),
}
"""Precisions whose fractions of peak stand in where a precision has no fit of its own."""

KINDRED_VARIANTS = {"fp8_cache": "", "mla_fp8_cache": "mla"}
"""Variants that differ from another in what they read."""

MODULE = "-module"
"""What the harness of a whole layer ends in: its fit holds norms, rotary embedding and cache writes as well."""

SAME_TEMPLATE = {"flashinfer": "fa2@vllm"}
"""Kernels that are another one's program on chips without asynchronous matrix units (FlashInfer's documentation)."""

CUBLAS = frozenset({"torch", "sglang", "vllm", "trtllm", "vidur"})
"""Libraries whose plain 16-bit products are cuBLAS: what one of them measured on a chip holds for the others."""

SAME_RATE = {"fp16": "bf16"}
"""Precisions that chips compute alike: fits of the second hold for the first."""


def is_by(fit: Fit, library: str, same_harness: bool) -> bool:
    """Whether a fit is of ``library``, a kernel or ``kernel@harness``; whole modules stand in for nothing else."""
    if same_harness or fit.library == library:
        return fit.library == library
    return not fit.library.endswith(MODULE) and fit.library.split("@")[0] == library.split("@")[0]


def alike(fit: Fit, library: str) -> tuple[bool, int]:
    """How like the harness asked for that of a fit is, ascending: both of grouped heads or both of latent attention,
    both alone or both called by an engine; then by the rows behind it.
    """
    kinds = [
        (harness != "", harness.endswith("-mla"))
        for harness in (fit.library.partition("@")[2], library.partition("@")[2])
    ]
    return kinds[0] != kinds[1], -fit.rows


UNKNOWN, CACHE_APART, ALL_APART = 0, 1, 2
"""What a harness's own kernels move beside prefill attention: not known; new keys and values (vLLM, SGLang); queries,
keys and values alike (TensorRT-LLM)."""

_COPIES = {"vllm": CACHE_APART, "sglang": CACHE_APART, "trtllm": ALL_APART}


def copies(library: str) -> int:
    """What the harness of ``kernel@harness`` copies beside prefill attention."""
    kernel, _, harness = library.partition("@")
    return UNKNOWN if kernel == "trtllm-gen" else _COPIES.get(harness, UNKNOWN)


def quantises_queries(library: str, precision: str, variant: str) -> bool:
    """Whether queries are narrowed by a kernel of their own before attention over a cache of 8 bits.

    FlashAttention 3 and TensorRT-LLM's generated kernels take such a cache with 8-bit queries alone. Of tables whose
    attention is called 8-bit, SGLang's for FlashAttention 3 were handed them.
    """
    kernel, _, harness = library.partition("@")
    if kernel == "fa3" and harness in ("vllm", "sglang"):
        return variant == "fp8_cache"
    return library == "trtllm@sglang" and (precision == "fp8" or variant == "fp8_cache")
