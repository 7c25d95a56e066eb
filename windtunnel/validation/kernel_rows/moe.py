"""Rows of mixture-of-experts tables: fused layers (aiconfigurator), grouped products (InferSim, DeepGEMM)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, WEIGHT_ONLY_BYTES, Batch
from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name, precision_of
from windtunnel.validation.measured import MeasuredRows, batch, shape_groups
from windtunnel.validation.routing import RankLoad, rank_load
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
    more: Mapping[str, Floats] | None = None,
) -> Batch:
    """Grouped products over ``experts``, of which ``active`` receive rows; ``more`` dimensions."""
    element = ELEMENT_BYTES[precision]
    weight = WEIGHT_ONLY_BYTES.get(variant, element)
    return batch(
        Family.GROUPED_GEMM,
        precision,
        {"tokens": rows, "n": n, "k": k, "experts": experts, "active": active, **(more or {})},
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
        found = _loads(rows, kernel, tokens, top_k, ranks)
        received = np.array([load.rows for load in found])
        active = np.array([load.active for load in found])
        blanks = kernel == "triton"  # which keeps rows of other ranks as blanks
        moved = np.maximum(tokens * top_k, received) if blanks else received
        weight = WEIGHT_ONLY_BYTES.get(path[1], ELEMENT_BYTES[path[0]])
        touched = active * (gates + 1.0) * inner * hidden * weight + 2.0 * received * (hidden + gates * inner)
        expected = tokens * top_k / experts
        more = {**_by_group(found), "touched_bytes": touched, "expected_rows": expected}
        parts = (
            grouped(received, gates * inner, hidden, experts, active, *path, more=more),
            grouped(received, hidden, inner, experts, active, *path, more=more),
            *_beside(kernel, path[0], moved, tokens, inner, hidden, gates),
        )
        groups = shape_groups(hidden, rows.number("inter_size"), top_k, rows.number("num_experts"))
        seconds = rows.number("latency_seconds")
        yield MeasuredRows(rows.file, chip, f"{kernel}@{library}", rows.index, parts, seconds, groups)


def _beside(
    kernel: str, precision: str, moved: Floats, tokens: Floats, inner: Floats, hidden: Floats, gates: float
) -> Iterator[Batch]:
    """What a fused layer does beside its products: it quantises its input, applies the activation, gathers the rows of
    each expert and sums what the experts answer. Generated kernels fuse the activation; they, Triton's and Marlin's
    read rows where they are.
    """
    if kernel != "trtllm_gen":
        yield batch(
            Family.POINTWISE, "bf16", {"elements": moved * inner},
            bytes_read=moved * inner * gates * 2.0, bytes_written=moved * inner * 2.0,
        )  # fmt: skip
    gathered = 0.0 if kernel in ("trtllm_gen", "triton", "marlin") else 2.0
    yield batch(
        Family.COPY, "bf16", {"elements": moved * hidden},
        bytes_read=(2.0 + gathered) * moved * hidden, bytes_written=(gathered * moved + 2.0 * tokens) * hidden,
    )  # fmt: skip
    if precision != "bf16":
        yield batch(
            Family.POINTWISE, "bf16", {"elements": tokens * hidden},
            bytes_read=2.0 * tokens * hidden, bytes_written=ELEMENT_BYTES[precision] * tokens * hidden,
        )  # fmt: skip


REMOTE_ROWS = ("0.5.9", "0.5.10")
"""Versions of SGLang whose tables were collected with rows of other ranks sent to a rank's first expert."""

SPARE_ROWS = {("trtllm", "1.0.0"): "most", ("vllm", "0.14.0"): "least"}
"""Libraries and versions whose tables were collected while loads were rounded to whole rows, and which experts received
what was missing (aiconfigurator's ``power_law_logits_v3``; the second as its rows show: one token of eight choices
reads eight experts of a rank that has 24). Later tables do not show it."""

PLAIN_ROUTERS = {(4096.0, 8.0), (6144.0, 8.0), (2816.0, 128.0), (2048.0, 60.0)}
"""(hidden size, experts) of the models without a routing method of their own (Mixtral, Gemma 4, Qwen 1.5): version
0.5.14 was still collected so for these, others through SGLang's own layer."""


def _loads(rows: Table, kernel: str, tokens: Floats, top_k: Floats, ranks: Floats) -> list[RankLoad]:
    experts = rows.number("num_experts")
    words = rows.text("distribution").tolist()
    exponents = [float(word.rsplit("_", 1)[1]) if word.startswith("power_law") else 0.0 for word in words]
    collectors = zip(rows.text("library").tolist(), rows.text("library_version").tolist())
    spare = [SPARE_ROWS.get(collector, "") for collector in collectors]
    columns = zip(tokens.tolist(), top_k.tolist(), experts.tolist(), ranks.tolist(), exponents, spare)
    found = [rank_load(int(t), int(k), int(e), int(r), a, spare=s) for t, k, e, r, a, s in columns]
    if kernel not in ("triton", "marlin") or not rows.has("library_version"):
        return found
    plain = [pair in PLAIN_ROUTERS for pair in zip(rows.number("hidden_size").tolist(), experts.tolist())]
    newer = (
        np.array(plain) & (kernel == "triton") & np.isin(rows.text("moe_dtype"), ("bfloat16", "fp8_block"))
    )
    sent = np.isin(rows.text("library_version"), REMOTE_ROWS) | newer
    sent &= (rows.text("library") == "sglang") & (ranks > 1)
    return [
        load.with_remote_rows(int(t), int(k)) if remote else load
        for load, t, k, remote in zip(found, tokens.tolist(), top_k.tolist(), sent.tolist())
    ]


def _by_group(found: Sequence[RankLoad]) -> dict[str, Floats]:
    """Experts and rows of one expert for each group of experts, as dimensions; zero where a rank has fewer."""
    most = max((len(load.counts) for load in found), default=0)
    columns: dict[str, Floats] = {}
    for number in range(most):
        columns[f"group{number}_experts"] = np.array(
            [load.counts[number] if number < len(load.counts) else 0.0 for load in found]
        )
        columns[f"group{number}_rows"] = np.array(
            [load.loads[number] if number < len(load.loads) else 0.0 for load in found]
        )
    return columns


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
