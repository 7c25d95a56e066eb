"""Rows of mixture-of-experts tables: fused layers (aiconfigurator), grouped products (InferSim, DeepGEMM)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.gemm import WEIGHT_ONLY_BYTES
from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name, precision_of
from windtunnel.validation.measured import MeasuredRows, batch, shape_groups
from windtunnel.validation.routing import rank_load
from windtunnel.validation.tables import Table

_KERNEL_WORDS = ("marlin", "triton", "trtllm_", "cutlass", "nongated", "deepep", "fused_moe")
_LIBRARY = {
    "trtllm_": "trtllm_gen",
    "nongated": "cutlass_nongated",
    "deepep": "deepgemm",
    "fused_moe": "triton",
}


GENERATED = frozenset({"w4a8_mxfp4_mxfp8", "nvfp4"})


def kernel_of(source: str, dtype: str = "") -> str:
    """``"vllm_fp8moe_triton_tritonexperts"`` → ``"triton"``; FP4 weights run on generated kernels in TensorRT-LLM."""
    name = source.lower()
    if name == "moe_torch_flow" and dtype in GENERATED:
        return "trtllm_gen"
    if "flashinfer_trtllm" in name:
        return "trtllm_gen"
    for word in _KERNEL_WORDS:
        if word in name:
            return _LIBRARY.get(word, word)
    return "cutlass"


def grouped(
    rows: Floats,
    n: Floats,
    k: Floats,
    experts: Floats,
    active: Floats,
    precision: str,
    variant: str,
    *,
    output_bytes: float = 2.0,
) -> Batch:
    """Grouped products over ``experts``, of which ``active`` receive rows."""
    element = ELEMENT_BYTES[precision]
    weight = WEIGHT_ONLY_BYTES.get(variant, element)
    return batch(
        Family.GROUPED_GEMM,
        precision,
        {"tokens": rows, "n": n, "k": k, "experts": experts, "active": active},
        flops=2.0 * rows * n * k,
        bytes_read=rows * k * element + experts * n * k * weight,
        bytes_written=rows * n * output_bytes,
        variant=variant,
    )


def aiconfigurator(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_aic_moe``: gate and up product, activation, down product, gather and weighted sum."""
    names = ("gpu_system", "library", "kernel_source", "moe_dtype", "table")
    for (gpu, library, source, dtype, _), rows in table.groups(*names):
        chip, path = chip_name(gpu), precision_of(dtype)
        if chip is None or path is None:
            continue
        kernel = kernel_of(source, dtype)
        gates = 1.0 if "nongated" in source else 2.0
        hidden = rows.number("hidden_size")
        inner = rows.number("inter_size") / rows.number("moe_tp_size", 1.0)
        ranks = rows.number("moe_ep_size", 1.0)
        experts = np.maximum(rows.number("num_experts") / ranks, 1.0)
        tokens, top_k = rows.number("num_tokens"), rows.number("topk")
        loads = _loads(rows, tokens, top_k, ranks)
        moved = (
            tokens * top_k if kernel == "triton" else loads[:, 0]
        )  # Triton keeps rows of other ranks as blanks
        parts = (
            grouped(loads[:, 0], gates * inner, hidden, experts, loads[:, 1], *path),
            grouped(loads[:, 0], hidden, inner, experts, loads[:, 1], *path),
            batch(
                Family.POINTWISE, "bf16", {"elements": moved * inner},
                bytes_read=moved * inner * gates * 2.0, bytes_written=moved * inner * 2.0,
            ),
            batch(
                Family.COPY, "bf16", {"elements": moved * hidden},
                bytes_read=2.0 * moved * hidden * 2.0, bytes_written=(moved + tokens) * hidden * 2.0,
            ),
        )  # fmt: skip
        groups = shape_groups(hidden, rows.number("inter_size"), top_k, rows.number("num_experts"))
        seconds = rows.number("latency_seconds")
        yield MeasuredRows(rows.file, chip, f"{kernel}@{library}", rows.index, parts, seconds, groups)


def _loads(rows: Table, tokens: Floats, top_k: Floats, ranks: Floats) -> Floats:
    experts = rows.number("num_experts")
    words = rows.text("distribution").tolist()
    exponents = [float(word.rsplit("_", 1)[1]) if word.startswith("power_law") else 0.0 for word in words]
    columns = zip(tokens.tolist(), top_k.tolist(), experts.tolist(), ranks.tolist(), exponents)
    return np.array([rank_load(int(t), int(k), int(e), int(r), a) for t, k, e, r, a in columns]).reshape(
        -1, 2
    )


def infersim(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_infersim_grouped_gemm``: the up product; the down product is listed by ``infersim_down``."""
    yield from _infersim(table, "up_proj_seconds", up=True)


def infersim_down(table: Table) -> Iterator[MeasuredRows]:
    """The down products of the same file."""
    yield from _infersim(table, "down_proj_seconds", up=False)


def _infersim(table: Table, column: str, *, up: bool) -> Iterator[MeasuredRows]:
    for (gpu, phase), rows in table.groups("gpu", "phase"):
        chip = chip_name(gpu)
        if chip is None:
            continue
        hidden, inner = rows.number("hidden_size"), rows.number("intermediate_size")
        experts = rows.number("num_local_experts")
        tokens = rows.number("tokens_per_expert") * experts
        n, k = (2.0 * inner, hidden) if up else (hidden, inner)
        part = grouped(tokens, n, k, experts, np.minimum(experts, tokens), "fp8", "block128")
        library = "deepgemm"
        groups = shape_groups(experts, rows.number("tokens_per_expert"))
        yield MeasuredRows(
            f"{rows.file}:{phase}", chip, library, rows.index, (part,), rows.number(column), groups
        )


def deepgemm(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_deepgemm_h800``, grouped rows."""
    for (gpu, precision), rows in table.where(table.text("op") != "dense").groups("gpu", "precision"):
        chip, path = chip_name(gpu), precision_of(precision)
        if chip is None or path is None:
            continue
        experts = rows.number("num_groups")
        tokens = rows.number("m_per_group") * experts
        part = grouped(tokens, rows.number("n"), rows.number("k"), experts, experts, *path)
        groups = shape_groups(rows.number("n"), rows.number("k"))
        yield MeasuredRows(
            rows.file, chip, "deepgemm", rows.index, (part,), rows.number("derived_seconds"), groups
        )
