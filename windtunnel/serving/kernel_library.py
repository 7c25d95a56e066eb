"""Whose kernels a serving stack runs: an engine calls other libraries than plain PyTorch does.

Every engine has its choice by family, best first; a chip takes the first that was measured on it, else the
first that was measured on a relative (as Moore Threads' MATE wraps FlashAttention 3, FlashMLA and DeepGEMM
under their own names), else whatever ``cost`` takes by default. Sources: the engines' own backend tables
(vLLM 0.33, SGLang 0.5.23, TensorRT-LLM 1.2). Products outside experts keep the default but for 128 × 128
blocks, since fits named after an engine also hold what its benchmark did beside the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from windtunnel.cost.fit_files import load
from windtunnel.program.work import Family, Work
from windtunnel.specs.schema import Chip, Vendor


class Stack(StrEnum):
    """Serving engines whose rules and kernels are known."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM = "trtllm"


EXCHANGE_SMS = {Stack.SGLANG: 24}
"""Multiprocessors that DeepEP is given for prompts, where an engine says other than DeepEP's 20: what SGLang's tuner
writes into the file of ``--deepep-config`` (``tuning_deepep.py``); without that file it warns of 20 being too few."""

_BLOCK = "block128"
_NARROW = "w4a8"
"""Weights of four bits, rows of eight."""
_LATENT_PREFILL = "latent"
_FILES = {
    Family.GEMM: "gemm",
    Family.GROUPED_GEMM: "grouped_gemm",
    Family.ATTENTION: "attention",
    Family.DECODE_ATTENTION: "decode_attention",
    Family.DELTANET: "deltanet",
}
_CHUNKED = "chunk"
_MATE_DELTANET = ("tilelang",)
"""MATE's prompts of Gated DeltaNet are TileLang programs (``mate/gdn_kernels/tilelang``), and vLLM-MUSA and SGLang call
them on the S5000, not flash-linear-attention's Triton, which PyTorch programs call: six times as long."""
_TENSOR_MEMORY = 10
"""Compute capability, first number, of data-centre Blackwell; cards of 12 (RTX) have no tensor memory."""
_BLACKWELL_LATENT = ("trtllm@trtllm-mla",)
"""What decodes latent attention there under every engine: vLLM takes FLASHINFER_MLA first on capability 10
(``platforms/cuda.py``), SGLang ``trtllm_mla`` for DeepSeek's family (``model_overrides/deepseek_v2.py``); both call
TensorRT-LLM's kernels, which read a cache of 8 bits as it is. Their measured times are Hopper's."""
_CHOICES: Mapping[Stack, Mapping[tuple[Family, str], tuple[str, ...]]] = {
    Stack.VLLM: {
        (Family.GEMM, _BLOCK): ("deepgemm",),
        (Family.GROUPED_GEMM, ""): ("triton@vllm",),
        (Family.GROUPED_GEMM, _BLOCK): ("deepgemm", "deepgemm@sglang"),
        (Family.ATTENTION, ""): ("mate", "fa3@vllm", "fa2@vllm", "trtllm-gen@trtllm"),
        (Family.ATTENTION, _LATENT_PREFILL): ("mate", "fa3", "fa3@vllm-mla", "fa2@vllm-mla"),
        (Family.DECODE_ATTENTION, ""): ("fa3@vllm", "fa2@vllm", "trtllm-gen@trtllm"),
        (Family.DECODE_ATTENTION, "mla"): ("flashmla", "fa3@vllm-mla", "triton@vllm-mla"),
        (Family.DELTANET, _CHUNKED): _MATE_DELTANET,
    },
    Stack.SGLANG: {
        (Family.GEMM, _BLOCK): ("deepgemm",),
        (Family.GROUPED_GEMM, ""): ("triton@sglang",),
        (Family.GROUPED_GEMM, _BLOCK): ("deepgemm", "deepgemm@sglang"),
        (Family.ATTENTION, ""): ("mate", "fa3@sglang", "fa2@sglang", "trtllm-gen@trtllm"),
        (Family.ATTENTION, _LATENT_PREFILL): ("mate", "fa3", "fa3@sglang", "fa2@sglang"),
        (Family.DECODE_ATTENTION, ""): ("fa3@sglang", "fa2@sglang", "triton@sglang"),
        (Family.DECODE_ATTENTION, "mla"): ("flashmla", "fa3_absorbed@sglang-mla", "triton@vllm-mla"),
        (Family.DELTANET, _CHUNKED): _MATE_DELTANET,
    },
    Stack.TRTLLM: {
        (Family.GEMM, _BLOCK): ("deepgemm",),
        (Family.GROUPED_GEMM, ""): ("cutlass@trtllm",),
        (Family.GROUPED_GEMM, _BLOCK): ("deepgemm@sglang", "cutlass@trtllm"),
        (Family.GROUPED_GEMM, _NARROW): ("trtllm_gen@trtllm",),
        (Family.ATTENTION, ""): ("mate", "trtllm@trtllm"),
        (Family.ATTENTION, _LATENT_PREFILL): ("mate", "trtllm@trtllm-mla"),
        (Family.DECODE_ATTENTION, ""): ("trtllm@trtllm",),
        (Family.DECODE_ATTENTION, "mla"): ("trtllm@trtllm-mla",),
    },
}


def library_of(stack: Stack, work: Work, chip: Chip) -> str:
    """The library that prices ``work`` on ``chip``; empty: the default."""
    file = _FILES.get(work.family)
    if file is None:
        return ""
    wanted = _CHOICES[stack].get((work.family, _kind(work)), ())
    if chip.vendor is Vendor.MOORE_THREADS and work.variant == "mla_fp8_cache":
        # MATE has FlashMLA; SGLang's FlashAttention 3 widens all of the cache in every step (H100: 4.6 times as long)
        wanted = wanted[:1]
    if work.family is Family.DECODE_ATTENTION and _kind(work) == "mla" and _has_tensor_memory(chip):
        wanted = (*_BLACKWELL_LATENT, *wanted)
    for name in (chip.name, *chip.relatives):
        measured = {fit.library for fit in load(file) if fit.chip == name and fit.precision == work.precision}
        for library in wanted:
            if library in measured:
                return library
    return ""


def _has_tensor_memory(chip: Chip) -> bool:
    return chip.vendor is Vendor.NVIDIA and chip.compute_capability[0] == _TENSOR_MEMORY


def _kind(work: Work) -> str:
    """The variant that decides the library: latent attention's prompts have keys wider than values."""
    if work.family is Family.ATTENTION:
        return _LATENT_PREFILL if work.dim("qk_dim") != work.dim("v_dim") else ""
    if work.family is Family.DECODE_ATTENTION:
        return "mla" if work.variant.startswith("mla") else ""
    return work.variant if work.variant in (_BLOCK, _NARROW, _CHUNKED) else ""
