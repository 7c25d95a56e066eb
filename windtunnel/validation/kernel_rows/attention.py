"""Rows of attention tables: aiconfigurator prefill and decode, FlashAttention charts, InferSim, SimuMax."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.cost.stand_in import SAME_RATE
from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name, precision_of
from windtunnel.validation.measured import MeasuredRows, attention, shape_groups
from windtunnel.validation.tables import Table

KERNELS = {
    "torch_flow": "trtllm",
    "torch_flow_flashinfer": "trtllm-gen",  # the collector pins FlashInfer to TensorRT-LLM's generated kernels
    "vllm_flash_attn_fa3": "fa3",
    "vllm_flash_attn_fa4": "fa4",
    "vllm_flash_attn_fa2": "fa2",
    "vllm_flash_attn": "fa2",
    "flash_attention": "fa2",
    "vllm_triton_attn": "triton",
    "vllm_flashinfer_fidecode": "flashinfer",
    "vllm_flashinfer_fiprefill": "flashinfer",
    "vllm_flashinfer_trtllmdecode": "trtllm",
    "vllm_flashinfer_trtllmprefill": "trtllm",
    "trtllm_mha": "trtllm",
    "FlashAttention-2": "fa2",
    "FlashAttention-3": "fa3",
    "cuDNN": "cudnn",
    "PyTorch eager attention": "torch",
    "PyTorch SDPA": "torch",
}
"""Kernel as a table names it → what it is; the library of a fit is ``kernel@harness``."""

_CACHE_BYTES = {"bfloat16": 2.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "": 2.0}


def _kernel(name: str) -> str:
    return KERNELS.get(name, name)


def context(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_aic_context_attention``: causal prefill; ``step`` tokens stand in the cache already.

    vLLM takes single tokens for decoding, and the kernel's name says so.
    """
    names = ("gpu_system", "library", "kernel_source", "attn_dtype", "kv_cache_dtype")
    for (gpu, library, kernel, dtype, cache), rows in table.groups(*names):
        chip, path = chip_name(gpu), precision_of(dtype)
        if chip is None or path is None:
            continue
        heads, kv_heads, dim = _heads(rows)
        isl = rows.number("isl")
        decoding = "decode" in kernel
        part = attention(
            Family.DECODE_ATTENTION if decoding else Family.ATTENTION, path[0],
            sequences=rows.number("batch_size"), heads=heads, kv_heads=kv_heads,
            q_len=isl, kv_len=isl + rows.number("step", 0.0), qk_dim=dim, v_dim=dim,
            window=rows.number("window_size", 0.0), kv_element_bytes=_CACHE_BYTES.get(cache, 2.0),
            variant="fp8_cache" if cache == "fp8" and path[0] != "fp8" else "",
        )  # fmt: skip
        groups, seconds = shape_groups(heads, kv_heads, dim), rows.number("latency_seconds")
        yield MeasuredRows(
            rows.file, chip, f"{_kernel(kernel)}@{library}", rows.index, (part,), seconds, groups
        )


def generation(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_aic_generation_attention``: one query each over ``isl + step`` keys."""
    names = ("gpu_system", "library", "kernel_source", "attn_dtype", "kv_cache_dtype")
    for (gpu, library, kernel, dtype, cache), rows in table.groups(*names):
        chip, path = chip_name(gpu), precision_of(dtype)
        if chip is None or path is None:
            continue
        heads, kv_heads, dim = _heads(rows)
        part = attention(
            Family.DECODE_ATTENTION, path[0],
            sequences=rows.number("batch_size"), heads=heads, kv_heads=kv_heads,
            q_len=np.ones(len(rows)), kv_len=rows.number("isl") + rows.number("step", 0.0),
            qk_dim=dim, v_dim=dim,
            window=rows.number("window_size", 0.0), kv_element_bytes=_CACHE_BYTES.get(cache, 2.0),
            variant="fp8_cache" if cache == "fp8" and path[0] != "fp8" else "",
        )  # fmt: skip
        groups, seconds = shape_groups(heads, kv_heads, dim), rows.number("latency_seconds")
        yield MeasuredRows(
            rows.file, chip, f"{_kernel(kernel)}@{library}", rows.index, (part,), seconds, groups
        )


def _heads(rows: Table) -> tuple[Floats, Floats, Floats]:
    heads = rows.number("num_heads")
    kv_heads = rows.number("num_key_value_heads", 0.0)
    return heads, np.where(kv_heads > 0, kv_heads, heads), rows.number("head_dim")


def flash_charts(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_flash_attention``: forward, and forward plus backward, by implementation."""
    for (gpu, kernel, phase, dtype), rows in table.groups("gpu", "implementation", "phase", "dtype"):
        chip, path = chip_name(gpu), precision_of(dtype)
        shaped = rows.where(
            np.isfinite(rows.number("sequence_length_tokens")) & np.isfinite(rows.number("query_heads"))
        )
        if chip is None or path is None or not len(shaped) or phase not in _PHASES:
            continue
        variant = "math" if "eager" in kernel else ""
        precision = SAME_RATE.get(path[0], path[0])
        parts = tuple(_self_attention(shaped, family, precision, variant) for family in _PHASES[phase])
        groups = shape_groups(shaped.number("head_dim"), shaped.number("sequence_length_tokens"))
        yield MeasuredRows(
            rows.file, chip, _kernel(kernel), shaped.index, parts, shaped.number("latency_seconds"), groups
        )


_PHASES = {
    "forward": (Family.ATTENTION,),
    "backward": (Family.ATTENTION_BACKWARD,),
    "forward+backward": (Family.ATTENTION, Family.ATTENTION_BACKWARD),
}


def _self_attention(rows: Table, family: Family, precision: str, variant: str):  # type: ignore[no-untyped-def]
    length, dim = rows.number("sequence_length_tokens"), rows.number("head_dim")
    heads = rows.number("query_heads")
    causal = np.where(rows.text("causal") == "True", 1.0, 0.0)
    return attention(
        family, precision,
        sequences=rows.number("batch_size", 1.0), heads=heads, kv_heads=rows.number("kv_heads", 1.0),
        q_len=length, kv_len=length, qk_dim=dim, v_dim=dim, causal=causal, variant=variant,
    )  # fmt: skip


def beside_linear_attention(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_fla_gb200``: the FlashAttention 2 rows that linear attention is compared with; causal, as presumed."""
    for (gpu, phase), rows in table.where(table.text("operation") == "flash_attn").groups("gpu", "phase"):
        chip = chip_name(gpu)
        if chip is None or phase not in _PHASES:
            continue
        length, dim, heads = (rows.number(name) for name in ("sequence_length_tokens", "head_dim", "heads"))
        parts = tuple(
            attention(
                family, "bf16",
                sequences=rows.number("batch_size"), heads=heads, kv_heads=heads,
                q_len=length, kv_len=length, qk_dim=dim, v_dim=dim,
            )
            for family in _PHASES[phase]
        )  # fmt: skip
        groups = shape_groups(heads, length)
        yield MeasuredRows(rows.file, chip, "fa2", rows.index, parts, rows.number("latency_seconds"), groups)


def infersim(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_infersim_attention``: grouped-query rows and latent (MLA) rows; sparse ones are not predicted."""
    for (gpu, kind, phase, cache), rows in table.groups("gpu", "kind", "phase", "kv_dtype"):
        chip = chip_name(gpu)
        if chip is None or kind not in ("mha", "mla"):
            continue
        latent = kind == "mla"
        heads = rows.number("num_heads")
        prefill = phase == "prefill"
        kv_len = rows.number("kv_len")
        q_len = rows.number("query_len", 1.0)
        if prefill:
            kv_len = np.where(np.isfinite(kv_len), kv_len, q_len)
            q_len = np.where(rows.number("query_len", 0.0) > 0, q_len, kv_len)
        kv_heads = np.ones(len(rows)) if latent and not prefill else rows.number("num_kv_heads", 0.0)
        kv_heads = np.where(kv_heads > 0, kv_heads, heads)
        qk_dim, v_dim = rows.number("head_dim"), rows.number("head_dim")
        per_token = None
        if latent:
            low, rope = rows.number("kv_lora_rank_or_qk_nope_dim"), rows.number("rope_dim")
            qk_dim, v_dim = low + rope, low
            per_token = (low + rope) * _CACHE_BYTES.get(cache, 2.0) if not prefill else None
        part = attention(
            Family.ATTENTION if prefill else Family.DECODE_ATTENTION, "bf16",
            sequences=rows.number("batch_size", 1.0), heads=heads, kv_heads=kv_heads,
            q_len=q_len, kv_len=kv_len, qk_dim=qk_dim, v_dim=v_dim,
            kv_element_bytes=_CACHE_BYTES.get(cache, 2.0), kv_bytes_per_token=per_token,
            variant="mla" if latent and not prefill else "",
        )  # fmt: skip
        library = "fa3" if not latent or prefill else "flashmla"
        groups = shape_groups(heads, kv_heads)
        yield MeasuredRows(
            rows.file, chip, library, rows.index, (part,), rows.number("latency_seconds"), groups
        )
