"""Attention and grouped rows of ``kernel_simumax_efficiency``: training kernels, shapes in one text column.

Rates count the full square of a causal attention, which its efficiencies close to 1 on A100 show (FlashAttention
reaches half of that), and five products backward. Grouped products name the forward shape of the layer in all
three stages: M rows a group, N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.kernel_rows.moe import grouped
from windtunnel.validation.measured import MeasuredRows, attention, shape_groups
from windtunnel.validation.tables import Table


def _fields(keys: list[str]) -> dict[str, Floats]:
    """``"ng=80, M=308"`` by row → columns of numbers; words become NaN."""
    rows = [dict(cell.strip().split("=", 1) for cell in key.split(",") if "=" in cell) for key in keys]
    names = sorted({name for row in rows for name in row})
    return {name: np.array([_number(row.get(name, "")) for row in rows]) for name in names}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def attention_rows(table: Table) -> Iterator[MeasuredRows]:
    """``sdp_fwd`` and ``sdp_bwd``."""
    for op, family in (("sdp_fwd", Family.ATTENTION), ("sdp_bwd", Family.ATTENTION_BACKWARD)):
        for (gpu,), rows in table.where(table.text("op") == op).groups("gpu"):
            chip = chip_name(gpu)
            if chip is None:
                continue
            x = _fields(rows.text("shape_key").tolist())
            part = attention(
                family, "bf16",
                sequences=x["batch"], heads=x["head_num"], kv_heads=x["kv_head_num"],
                q_len=x["seq_len"], kv_len=x["seq_len"], qk_dim=x["qk_head_dim"], v_dim=x["v_head_dim"],
            )  # fmt: skip
            seconds = part.flops / (rows.number("measured_tflops") * 1e12)
            groups = shape_groups(x["head_num"], x["seq_len"], x["qk_head_dim"])
            yield MeasuredRows(rows.file, chip, "torch", rows.index, (part,), seconds, groups)


def grouped_rows(table: Table) -> Iterator[MeasuredRows]:
    """``group_matmul`` in its three stages; the weight gradient adds to FP32 sums."""
    for (gpu,), rows in table.where(table.text("op") == "group_matmul").groups("gpu"):
        chip = chip_name(gpu)
        if chip is None:
            continue
        keys = rows.text("shape_key").tolist()
        for stage in ("fwd", "bwd_grad_act", "bwd_grad_w"):
            chosen = rows.where(np.array([f"stage={stage}," in key for key in keys]))
            if not len(chosen):
                continue
            x = _fields(chosen.text("shape_key").tolist())
            part = _stage(x, stage)
            seconds = part.flops / (chosen.number("measured_tflops") * 1e12)
            groups = shape_groups(x["ng"], x["N"], x["K"])
            yield MeasuredRows(rows.file, chip, "torch", chosen.index, (part,), seconds, groups)


def _stage(x: dict[str, Floats], stage: str) -> Batch:
    experts, m, n, k = x["ng"], x["M"], x["N"], x["K"]
    if stage == "bwd_grad_w":
        return grouped(n * experts, k, m, experts, experts, "bf16", "accumulate", output_bytes=8.0)
    if stage == "bwd_grad_act":
        n, k = k, n
    return grouped(m * experts, n, k, experts, experts, "bf16", "")
