"""Rows of multi-head latent attention tables: kernels alone, and whole modules with their projections.

DeepSeek-V3's shape: hidden 7168, query rank 1536, latent 512 plus 64 rotary, heads of 128 plus 64 (values 128).
Prefill expands keys and values for every head; decode folds the expansion into queries and outputs, so all
heads share one latent key of 576. SGLang's rows of the kernel alone prefill in the latent space as well (its
collector builds one layer for both). vLLM prefills by FlashAttention whatever decodes: by FlashAttention 2 on all but
Hopper, with values padded to the keys' width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family
from windtunnel.specs.catalogue import generation_of
from windtunnel.validation.aliases import chip_name, precision_of
from windtunnel.validation.measured import MeasuredRows, attention, gemm, shape_groups
from windtunnel.validation.tables import Table

HIDDEN, Q_RANK, LATENT, ROPE, NOPE, VALUE = 7168.0, 1536.0, 512.0, 64.0, 128.0, 128.0

KERNELS = {
    "default": "trtllm",
    "flash_attention": "fa3_absorbed",  # SGLang prefills in the latent space
    "vllm_flash_attn_mla": "fa3",
    "vllm_flashmla": "flashmla",
    "vllm_triton_mla": "triton",
    "FLASH_ATTN_MLA": "fa3",
    "FLASHMLA": "flashmla",
    "FLASH_ATTN": "fa3",
    "TRITON_MLA": "triton",
    "flashinfer": "flashinfer",
    "fa3": "fa3",
    "triton": "triton",
}
_CACHE_BYTES = {"bfloat16": 2.0, "fp8": 1.0}


def aiconfigurator(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_aic_mla``."""
    names = ("gpu_system", "library", "table", "kernel_source", "mla_dtype", "kv_cache_dtype", "gemm_type")
    for (gpu, library, kind, kernel, dtype, cache, gemm_type), rows in table.groups(*names):
        chip = chip_name(gpu)
        if chip is None:
            continue
        attention_dtype = "bf16" if dtype != "fp8" else "fp8"
        decode = "generation" in kind
        module = "module" in kind or "wideep" in kind
        library_of_kernel = _kernel(kernel, library, decode, chip)
        absorbed = decode or (library == "sglang" and not module)
        parts = [_attention(rows, decode, attention_dtype, cache, absorbed, library_of_kernel == "fa2")]
        if module:
            parts += _projections(rows, decode, gemm_type or "bfloat16")
            library_of_kernel = f"{library_of_kernel}@{library}-module"
        else:
            library_of_kernel = f"{library_of_kernel}@{library}-mla"
        groups = shape_groups(rows.number("num_heads"))
        yield MeasuredRows(
            rows.file,
            chip,
            library_of_kernel,
            rows.index,
            tuple(parts),
            rows.number("latency_seconds"),
            groups,
        )


def _kernel(name: str, library: str, decode: bool, chip: str) -> str:
    """The kernel that a table calls ``name``."""
    kernel = KERNELS.get(name, name)
    if library == "vllm" and not decode and kernel in ("fa3", "triton") and generation_of(chip) != "Hopper":
        return "fa2"
    return kernel


def _attention(rows: Table, decode: bool, dtype: str, cache: str, absorbed: bool, padded: bool) -> Batch:
    heads, sequences = rows.number("num_heads"), rows.number("batch_size")
    isl, step = rows.number("isl"), rows.number("step", 0.0)
    ones = np.ones(len(rows))
    value = LATENT if absorbed else NOPE + ROPE if padded else VALUE
    return attention(
        Family.DECODE_ATTENTION if decode else Family.ATTENTION, dtype,
        sequences=sequences, heads=heads, kv_heads=ones if absorbed else heads,
        q_len=ones if decode else isl, kv_len=isl + step,
        qk_dim=ones * (LATENT + ROPE if absorbed else NOPE + ROPE), v_dim=ones * value,
        kv_bytes_per_token=ones * (LATENT + ROPE) * _CACHE_BYTES.get(cache, 2.0) if absorbed else None,
        variant="" if not absorbed else "mla_fp8_cache" if cache == "fp8" else "mla",
    )  # fmt: skip


def _projections(rows: Table, decode: bool, gemm_type: str) -> list[Batch]:
    path = precision_of(gemm_type) or ("bf16", "")
    heads = rows.number("num_heads")
    tokens = rows.number("batch_size") * (1.0 if decode else rows.number("isl"))
    one = np.ones(len(rows))

    def product(n: Floats, k: Floats) -> Batch:
        return gemm(tokens, n, k, path[0], variant=path[1])

    parts = [
        product(one * (Q_RANK + LATENT + ROPE), one * HIDDEN),
        product(heads * (NOPE + ROPE), one * Q_RANK),
        product(one * HIDDEN, heads * VALUE),
    ]
    if decode:
        parts += [
            gemm(tokens, one * LATENT, one * NOPE, "bf16", count=heads),
            gemm(tokens, one * VALUE, one * LATENT, "bf16", count=heads),
        ]
    else:
        parts.append(product(heads * (NOPE + VALUE), one * LATENT))
    return parts
