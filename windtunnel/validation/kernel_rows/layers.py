"""Rows of small layer operations: Vidur's profiles (projections, norms, rotary, activation) and LLMCompass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured import MeasuredRows, batch, gemm, shape_groups
from windtunnel.validation.tables import Table


def stream(
    family: Family, read: Floats, written: Floats, dims: dict[str, Floats], variant: str = ""
) -> Batch:
    """A streaming kernel of BF16 data."""
    return batch(family, "bf16", dims, bytes_read=read, bytes_written=written, variant=variant)


def vidur(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_vidur_mlp_ops``: one operation of a tensor-parallel rank."""
    for (gpu, op), rows in table.groups("gpu", "op"):
        chip = chip_name(gpu)
        if chip is None or op not in _VIDUR:
            continue
        part = _VIDUR[op](rows)
        groups = shape_groups(
            rows.number("hidden_size"), rows.number("ffn_size"), rows.number("tensor_parallel")
        )
        yield MeasuredRows(
            rows.file, chip, "vidur", rows.index, (part,), rows.number("median_seconds"), groups
        )


def _tokens(rows: Table) -> Floats:
    return rows.number("num_tokens")


def _head_dim(rows: Table) -> Floats:
    return np.asarray(rows.number("hidden_size") / rows.number("num_heads"))


def _query_key(rows: Table) -> tuple[Floats, Floats]:
    parallel, dim = rows.number("tensor_parallel"), _head_dim(rows)
    queries = rows.number("num_heads") / parallel * dim
    keys = np.maximum(rows.number("num_kv_heads") / parallel, 1.0) * dim
    return np.asarray(queries), np.asarray(keys)


def _gates(rows: Table) -> Floats:
    return np.where(np.isin(rows.text("gated_mlp"), ("True", "1.0", "true")), 2.0, 1.0)


def _pre(rows: Table) -> Batch:
    queries, keys = _query_key(rows)
    return gemm(_tokens(rows), queries + 2.0 * keys, rows.number("hidden_size"), "bf16")


def _post(rows: Table) -> Batch:
    queries, _ = _query_key(rows)
    return gemm(_tokens(rows), rows.number("hidden_size"), queries, "bf16")


def _up(rows: Table) -> Batch:
    inner = rows.number("ffn_size") / rows.number("tensor_parallel")
    return gemm(_tokens(rows), _gates(rows) * inner, rows.number("hidden_size"), "bf16")


def _down(rows: Table) -> Batch:
    inner = np.asarray(rows.number("ffn_size") / rows.number("tensor_parallel"))
    return gemm(_tokens(rows), rows.number("hidden_size"), inner, "bf16")


def _activation(rows: Table) -> Batch:
    elements = _tokens(rows) * rows.number("ffn_size") / rows.number("tensor_parallel")
    return stream(
        Family.POINTWISE, elements * _gates(rows) * 2.0, elements * 2.0, {"elements": elements}, "activation"
    )


def _add(rows: Table) -> Batch:
    elements = _tokens(rows) * rows.number("hidden_size")
    return stream(Family.POINTWISE, elements * 4.0, elements * 2.0, {"elements": elements})


def _rotary(rows: Table) -> Batch:
    queries, keys = _query_key(rows)
    elements = _tokens(rows) * (queries + keys)
    return stream(Family.POINTWISE, elements * 2.0, elements * 2.0, {"elements": elements}, "rotary")


def _norm(rows: Table) -> Batch:
    tokens, hidden = _tokens(rows), rows.number("hidden_size")
    moved = tokens * hidden * 2.0
    return stream(Family.NORM, moved, moved, {"rows": tokens, "columns": hidden})


def _embedding(rows: Table) -> Batch:
    tokens, hidden = _tokens(rows), rows.number("hidden_size")
    moved = tokens * hidden * 2.0
    # of a vocabulary-parallel layer: masks around the gather, several times a plain gather's time
    return stream(Family.EMBEDDING, moved, moved, {"rows": tokens, "columns": hidden}, "vocabulary_parallel")


_VIDUR = {
    "attn_pre_proj": _pre,
    "attn_post_proj": _post,
    "mlp_up_proj": _up,
    "mlp_down_proj": _down,
    "mlp_act": _activation,
    "add": _add,
    "attn_rope": _rotary,
    "input_layernorm": _norm,
    "post_attention_layernorm": _norm,
    "emb": _embedding,
}


def llmcompass(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_llmcompass_a100``: softmax, layer norm and GELU, whose rates are elements per second."""
    for (gpu, op), rows in table.groups("gpu", "op"):
        chip = chip_name(gpu)
        if chip is None or op not in ("softmax", "layernorm", "gelu"):
            continue
        m, n = rows.number("dim_m"), rows.number("dim_n", 1.0)
        moved = m * n * 2.0
        family = {"softmax": Family.SOFTMAX, "layernorm": Family.NORM, "gelu": Family.POINTWISE}[op]
        part = stream(family, moved, moved, {"rows": m, "columns": n} if op != "gelu" else {"elements": m})
        seconds = m * n / (rows.number("measured") * 1e9)
        yield MeasuredRows(rows.file, chip, "torch", rows.index, (part,), seconds, shape_groups(m, n))
