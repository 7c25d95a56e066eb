"""Kernels of the S5000 whose shapes stand in words (``4096^3``, ``B4 H32 S4096 D128``): ``s5000_measured`` and the
kernel rows of ``s5000_end_to_end``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.stand_in import SAME_RATE
from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.kernel_rows.deltanet import CHUNK, delta_rule
from windtunnel.validation.kernel_rows.layers import stream
from windtunnel.validation.measured import MeasuredRows, attention, batch, gemm
from windtunnel.validation.tables import Table

_PRECISION = re.compile(r"\b(fp64|fp32|tf32|fp16|bf16|int8|fp8)\b")
_LIBRARIES = ("mutlass", "triton", "FlagGems", "MATE", "torch")
_SIZES = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "M": 2.0**20 * 4.0}


def rows(table: Table) -> Iterator[MeasuredRows]:
    """One group of one row each: what a row is stands in its words."""
    columns = [table.text(name).tolist() for name in ("device", "group", "metric", "shape", "unit")]
    values = table.number("value")
    for number, (device, group, metric, shape, unit) in enumerate(zip(*columns)):
        chip = chip_name(device)
        part = _part(group, metric, shape)
        if chip is None or part is None:
            continue
        seconds = _seconds(part, float(values[number]), unit, metric)
        yield MeasuredRows(
            table.file, chip, _library(metric), table.index[number : number + 1], (part,),
            np.array([seconds]), np.array([number], dtype=np.int64),
        )  # fmt: skip


def _part(group: str, metric: str, shape: str) -> Batch | None:
    if group == "gemm":
        return _gemm(metric, shape)
    if group == "attention":
        return _attention(metric, shape)
    if group == "memory":
        return _memory(metric, shape)
    return _host_copy(metric, shape) if group == "pcie" and "bidirectional" not in metric else None


def _library(metric: str) -> str:
    found = next((name for name in _LIBRARIES if name in metric), "torch")
    return "torch" if found == "torch" else found.lower()


def _gemm(metric: str, shape: str) -> Batch | None:
    found = _PRECISION.search(metric)
    cube = re.fullmatch(r"(?:(\d+)x)?(\d+)\^3", shape)
    box = re.fullmatch(r"(\d+)x(\d+)x(\d+)", shape)
    linear = re.fullmatch(r"tokens (\d+), (\d+) -> (\d+)", shape)
    if found is None:
        return None
    if cube:
        count, side = float(cube[1] or 1), np.array([float(cube[2])])
        m = n = k = side
    elif box:
        count, (m, n, k) = 1.0, (np.array([float(part)]) for part in box.groups())
    elif linear:
        count, (m, k, n) = 1.0, (np.array([float(part)]) for part in linear.groups())
    else:
        return None
    precision = SAME_RATE.get(found[1], found[1])
    output = 4.0 if found[1] in ("fp32", "tf32") else 2.0
    return gemm(m, n, k, precision, count=count, output_bytes=output)


def _attention(metric: str, shape: str) -> Batch | None:
    sizes = {name: float(value) for name, value in re.findall(r"\b(B|H|S|D|seq|MBS|Dqk|Dv)\s?(\d+)", shape)}
    heads = sizes.get("H", float(match[1]) if (match := re.search(r"(\d+) heads", shape)) else 0.0)
    length = sizes.get("S", sizes.get("seq", 0.0))
    if not heads or not length:
        return None
    one = np.ones(1)
    found = _PRECISION.search(metric)
    causal = "noncausal" not in metric and ("causal" in metric or "MLA" in metric)
    return attention(
        Family.ATTENTION_BACKWARD if "bwd" in metric else Family.ATTENTION,
        SAME_RATE.get(found[1], found[1]) if found else "bf16",
        sequences=one * sizes.get("B", sizes.get("MBS", 1.0)),
        heads=one * heads,
        kv_heads=one * heads,
        q_len=one * length,
        kv_len=one * length,
        qk_dim=one * sizes.get("D", sizes.get("Dqk", 128.0)),
        v_dim=one * sizes.get("D", sizes.get("Dv", 128.0)),
        causal=float(causal),
    )


def _memory(metric: str, shape: str) -> Batch | None:
    size = _bytes(shape)
    table = re.fullmatch(r"(\d+)x(\d+)", shape)
    if "softmax" in metric and table:
        row, column = (np.array([float(part)]) for part in table.groups())
        moved = row * column * 4.0
        return stream(Family.SOFTMAX, moved, moved, {"rows": row, "columns": column})
    if size is None:
        return None
    if "vector add" in metric:
        return stream(
            Family.POINTWISE, np.array([2.0 * size]), np.array([size]), {"elements": np.array([size / 4])}
        )
    return stream(Family.COPY, np.array([size]), np.array([size]), {"bytes": np.array([2.0 * size])})


def _host_copy(metric: str, shape: str) -> Batch | None:
    size = _bytes(shape)
    if size is None:
        return None
    direction = "d2h" if "D2H" in metric else "h2d"
    variant = f"pageable_{direction}" if "pageable" in metric else direction
    return batch(
        Family.HOST_COPY, "fp32", {"bytes": size}, bytes_read=size, bytes_written=size, variant=variant
    )


def _bytes(shape: str) -> float | None:
    found = re.fullmatch(r"(\d+)(KiB|MiB|GiB|M)", shape)
    return float(found[1]) * _SIZES[found[2]] if found else None


def _seconds(part: Batch, value: float, unit: str, metric: str) -> float:
    if unit == "ms":
        return value * 1e-3
    if unit in ("TFLOP/s", "TOP/s"):
        causal = 0.5 if part.dims.get("causal", np.zeros(1))[0] > 0 else 1.0
        return float(part.flops[0]) * causal / (value * 1e12)
    moved = float(part.bytes_moved[0])
    if part.family is Family.HOST_COPY or "payload" in metric:
        moved /= 2.0
    return moved / (value * 1e9)


def kernels_in_words(table: Table) -> Iterator[MeasuredRows]:
    """``s5000_end_to_end``: its rows of kernels whose shapes the words give."""
    names = ("category", "device", "workload", "configuration", "metric")
    columns = [table.text(name).tolist() for name in names]
    values = table.number("value")
    for number, (category, device, workload, configuration, metric) in enumerate(zip(*columns)):
        chip = chip_name(device)
        parts = _parts_in_words(workload, configuration)
        if category != "kernel" or metric != "latency_seconds" or chip is None or not parts:
            continue
        yield MeasuredRows(
            table.file, chip, _library_in_words(configuration), table.index[number : number + 1], parts,
            values[number : number + 1], np.array([number], dtype=np.int64),
        )  # fmt: skip


def _library_in_words(configuration: str) -> str:
    if "FLA" in configuration:
        return "fla"
    return "tilelang" if "TileLang" in configuration else "vllm-musa"


def _parts_in_words(workload: str, configuration: str) -> tuple[Batch, ...]:
    sizes = {name: float(value) for name, value in re.findall(r"\b(B|S|H|DK|DV)=(\d+)", configuration)}
    if "gated delta net chunk" in workload and {"B", "S", "H"} <= set(sizes):
        one = np.ones(1)
        backwards = (False, True) if "backward" in workload else (False,)
        dim = sizes.get(
            "DK", float(match[1]) if (match := re.search(r"DK=DV=(\d+)", configuration)) else 128.0
        )
        return tuple(
            delta_rule(
                one * sizes["B"], one * sizes["S"], one * sizes["H"], one * sizes["H"], one * dim,
                chunk=CHUNK, backward=backward,
            )
            for backward in backwards
        )  # fmt: skip
    product = re.search(r"\[M,\s*(\d+)\]\s*x\s*\[(\d+),\s*(\d+)\]", workload)
    rows = re.search(r"\bM\s*=\s*(\d+)(?:\.\.(\d+))?", configuration)
    found = _PRECISION.search(workload.lower())
    if product and rows and found:
        # one figure for a range of rows: the middle of it, in logarithms
        m = math.sqrt(float(rows[1]) * float(rows[2] or rows[1]))
        tall, n, k = (np.array([size]) for size in (float(round(m)), float(product[3]), float(product[1])))
        return (gemm(tall, n, k, SAME_RATE.get(found[1], found[1])),)
    return ()
