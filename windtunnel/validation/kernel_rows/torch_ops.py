"""Rows of ``kernel_torch_ops``: PyTorch's own operations as `windtunnel measure` times them.

Work is counted where recorded programs are counted, so a row is predicted as the same operation in a script is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.errors import WindtunnelError
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Work
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured import MeasuredRows
from windtunnel.validation.tables import Table

Sizes = Mapping[str, int]
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}
"""Precision in tables → PyTorch's dtype."""


@dataclass(frozen=True, slots=True)
class TorchOp:
    """One operation: the sizes it takes, and what PyTorch records for it at a dtype."""

    sizes: tuple[str, ...]
    specs: Callable[[Sizes, str], Sequence[OpSpec]]


def _tensor(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(dtype, shape)


def _same(name: str, inputs: int = 1) -> Callable[[Sizes, str], Sequence[OpSpec]]:
    def specs(x: Sizes, dtype: str) -> Sequence[OpSpec]:
        one = _tensor(dtype, x["elements"])
        return (OpSpec(name, (one,) * inputs, (one,)),)

    return specs


def _softmax(x: Sizes, dtype: str) -> Sequence[OpSpec]:
    one = _tensor(dtype, x["rows"], x["columns"])
    return (OpSpec("aten._softmax.default", (one,), (one,), (("dim", -1), ("half_to_float", False))),)


def _layer_norm(x: Sizes, dtype: str) -> Sequence[OpSpec]:
    one, weight = _tensor(dtype, x["rows"], x["columns"]), _tensor(dtype, x["columns"])
    mean = _tensor("float32", x["rows"], 1)
    shape = (("normalized_shape", (x["columns"],)),)
    return (OpSpec("aten.native_layer_norm.default", (one, weight, weight), (one, mean, mean), shape),)


def _sum(x: Sizes, dtype: str) -> Sequence[OpSpec]:
    one = _tensor(dtype, x["rows"], x["columns"])
    return (OpSpec("aten.sum.dim_IntList", (one,), (_tensor(dtype, x["rows"]),), (("dim", (-1,)),)),)


def _embedding(x: Sizes, dtype: str) -> Sequence[OpSpec]:
    table, ids = _tensor(dtype, x["entries"], x["columns"]), _tensor("int64", x["rows"])
    return (OpSpec("aten.embedding.default", (table, ids), (_tensor(dtype, x["rows"], x["columns"]),)),)


def _adamw(x: Sizes, dtype: str) -> Sequence[OpSpec]:
    state, step = _tensor(dtype, x["elements"]), _tensor("float32")
    count = OpSpec("aten._foreach_add_.Scalar", (step,), ())
    return (OpSpec("aten._fused_adamw_.default", (state,) * 4 + (step,), ()), count)


def _grouped(x: Sizes, dtype: str) -> Sequence[OpSpec]:
    rows = _tensor(dtype, x["tokens"], x["k"])
    weights, offsets = _tensor(dtype, x["experts"], x["k"], x["n"]), _tensor("int32", x["experts"])
    out = _tensor(dtype, x["tokens"], x["n"])
    return (OpSpec("aten._grouped_mm.default", (rows, weights, offsets), (out,)),)


OPS: dict[str, TorchOp] = {
    "layer_norm": TorchOp(("rows", "columns"), _layer_norm),
    "softmax": TorchOp(("rows", "columns"), _softmax),
    "sum": TorchOp(("rows", "columns"), _sum),
    "embedding": TorchOp(("rows", "columns", "entries"), _embedding),
    "silu": TorchOp(("elements",), _same("aten.silu.default")),
    "add": TorchOp(("elements",), _same("aten.add.Tensor", 2)),
    "copy": TorchOp(("elements",), _same("aten.clone.default")),
    "adamw": TorchOp(("elements",), _adamw),
    "grouped_mm": TorchOp(("tokens", "n", "k", "experts"), _grouped),
}
"""Name in the table → operation."""


def works_of(name: str, sizes: Sizes, precision: str) -> list[Work]:
    """What an operation of these sizes asks of a chip. KeyError for a name, size or precision unknown."""
    return [work_of(spec) for spec in OPS[name].specs(sizes, DTYPES[precision])]


def rows(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_torch_ops``."""
    for (gpu, name, dtype), part in table.groups("gpu", "op", "dtype"):
        chip = chip_name(gpu)
        if chip is None or name not in OPS or dtype not in DTYPES:
            continue
        columns = [part.number(size) for size in OPS[name].sizes]
        whole = np.all([np.isfinite(column) & (column >= 1) for column in columns], axis=0)
        part = part.where(whole)
        works = []
        for cells in zip(*(column[whole].tolist() for column in columns), strict=True):
            sizes = {size: int(cell) for size, cell in zip(OPS[name].sizes, cells, strict=True)}
            try:
                works.append(works_of(name, sizes, dtype))
            except WindtunnelError:  # a dtype that the operation does not take
                return
        if works:
            batches = tuple(Batch.of_works(same) for same in zip(*works, strict=True))
            shape = np.arange(len(part), dtype=np.int64)
            yield MeasuredRows(
                part.file, chip, "torch", part.index, batches, part.number("latency_seconds"), shape
            )
