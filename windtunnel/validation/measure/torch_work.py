"""The operations of ``kernel_torch_ops`` as PyTorch calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as functional

from windtunnel.validation.measure.timer import Work

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def make_op(name: str, sizes: Mapping[str, int], precision: str, device: torch.device) -> Callable[[], Work]:
    """What prepares the tensors of an operation and answers the call to be timed."""
    dtype = _DTYPES[precision]

    def make() -> Work:
        if name == "adamw":
            return _adamw(sizes["elements"], dtype, device)
        if name == "grouped_mm":
            return _grouped_mm(sizes, dtype, device)
        if name == "embedding":
            table = torch.randn(sizes["entries"], sizes["columns"], device=device, dtype=dtype)
            ids = torch.randint(0, sizes["entries"], (sizes["rows"],), device=device)
            return lambda: functional.embedding(ids, table)
        if "elements" in sizes:
            x = torch.randn(sizes["elements"], device=device, dtype=dtype)
            y = torch.randn(sizes["elements"], device=device, dtype=dtype)
            return {"silu": lambda: functional.silu(x), "add": lambda: x + y, "copy": lambda: x.clone()}[name]
        return _rows(name, sizes["rows"], sizes["columns"], dtype, device)

    return make


def _rows(name: str, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Work:
    x = torch.randn(rows, columns, device=device, dtype=dtype)
    if name == "softmax":
        return lambda: torch.softmax(x, -1)
    if name == "sum":
        return lambda: x.sum(-1)
    weight = torch.ones(columns, device=device, dtype=dtype)
    return lambda: functional.layer_norm(x, (columns,), weight, weight)


def _adamw(elements: int, dtype: torch.dtype, device: torch.device) -> Work:
    parameter = torch.nn.Parameter(torch.randn(elements, device=device, dtype=dtype))
    parameter.grad = torch.randn_like(parameter)
    capturable = device.type != "cpu"
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, fused=True, capturable=capturable)
    optimizer.step()
    step: Work = optimizer.step
    return step


def _grouped_mm(sizes: Mapping[str, int], dtype: torch.dtype, device: torch.device) -> Work:
    rows = torch.randn(sizes["tokens"], sizes["k"], device=device, dtype=dtype)
    weights = torch.randn(sizes["experts"], sizes["k"], sizes["n"], device=device, dtype=dtype)
    share = sizes["tokens"] // sizes["experts"]
    ends = torch.arange(1, sizes["experts"] + 1, device=device, dtype=torch.int32) * share
    return lambda: functional.grouped_mm(rows, weights, offs=ends)
