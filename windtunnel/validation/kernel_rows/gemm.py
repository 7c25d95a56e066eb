"""Rows of dense GEMM tables: aiconfigurator, InferSim, DeepGEMM, best-GEMM searches, SimuMax, LLMCompass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, WEIGHT_ONLY_BYTES, Batch
from windtunnel.cost.gemm import OUTPUT_BYTES
from windtunnel.cost.kernel_time import Floats
from windtunnel.cost.stand_in import SAME_RATE
from windtunnel.program.work import Family
from windtunnel.specs.catalogue import chip as chip_named
from windtunnel.specs.catalogue import generation_of
from windtunnel.validation.aliases import chip_name, precision_of
from windtunnel.validation.measured import MeasuredRows, batch, gemm, shape_groups
from windtunnel.validation.tables import Table

_WEIGHT_BYTES = {"int8_wo": 1.0, "int4_wo": 0.5}


def _rows(
    table: Table,
    gpu: str,
    precision: str,
    library: str,
    seconds: Floats,
    *,
    count: Floats | float = 1.0,
    output_bytes: float = 2.0,
    variant: str = "",
    touched: Callable[[Batch], Floats] | None = None,
) -> Iterator[MeasuredRows]:
    chip, path = chip_name(gpu), precision_of(precision)
    if chip is None or path is None:
        return
    m, n, k = table.number("m"), table.number("n"), table.number("k")
    part = gemm(
        m, n, k, path[0],
        variant=variant or path[1], count=count, weight_bytes=_WEIGHT_BYTES.get(path[1]), output_bytes=output_bytes,
    )  # fmt: skip
    if touched is not None:
        part = replace(part, dims={**part.dims, "touched_bytes": touched(part)})
    parts = (part, *_scales_laid_out(n, k, chip, library, part.variant))
    yield MeasuredRows(table.file, chip, library, table.index, parts, seconds, shape_groups(n, k))


def _scales_laid_out(n: Floats, k: Floats, chip: str, library: str, variant: str) -> tuple[Batch, ...]:
    """What aiconfigurator times beside SGLang's block-scaled product on Blackwell: it hands FP32 scales of 128 × 128
    weights to DeepGEMM, which spreads them over all rows and packs them anew in every call, in four small kernels
    (DeepGEMM's ``layout.hpp``). Serving packs them once, while loading.
    """
    if (library, variant) != ("sglang", "block128") or generation_of(chip) != "Blackwell":
        return ()
    scales = n * np.ceil(k / 128.0)
    return (
        batch(
            Family.POINTWISE, "fp32", {"elements": scales},
            bytes_read=8.0 * n + 8.0 * scales, bytes_written=8.0 * n + 5.0 * scales, kernels=4.0,
        ),
    )  # fmt: skip


def aiconfigurator(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_aic_gemm``."""
    for (gpu, library, dtype), rows in table.groups("gpu_system", "library", "dtype"):
        chip = chip_name(gpu)
        if chip is None:
            continue
        cache_bytes = chip_named(chip).l2_bytes.value
        for (version,), release in rows.groups("library_version"):
            turns = _Turns(library, version, cache_bytes)
            yield from _rows(
                release, gpu, dtype, library, release.number("latency_seconds"), touched=turns.touched_bytes
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Turns:
    """Products of equal shape that a collector of aiconfigurator runs in turns, so that weights are not served from
    the cache, and what they share.

    SGLang: six, each with activations of its own. vLLM: six weights on the same activations, but one for FP4.
    TensorRT-LLM: five, since 1.3.0rc10 no more than fill the cache once.
    """

    library: str
    version: str
    cache_bytes: float

    def touched_bytes(self, part: Batch) -> Floats:
        """Bytes that pass between two uses of the same."""
        a, b, c = (part.dim(name) for name in ("m", "n", "k"))
        element = ELEMENT_BYTES[part.precision]
        weights = b * c * WEIGHT_ONLY_BYTES.get(part.variant, element)
        activations, output = a * c * element, a * b * OUTPUT_BYTES
        count = self._count(part.precision, weights)
        own = count if self.library == "sglang" else 1.0
        return np.asarray(count * weights + own * activations + output)

    def _count(self, precision: str, weights: Floats) -> Floats:
        if self.library == "trtllm":
            usual = 5.0
            filled = np.clip(np.ceil(self.cache_bytes / weights), 1.0, usual)
            return filled if self.version >= "1.3" else np.full_like(weights, usual)
        return np.full_like(weights, 1.0 if (self.library, precision) == ("vllm", "fp4") else 6.0)


def infersim(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_infersim_gemm``."""
    for (gpu, precision), rows in table.groups("gpu", "precision"):
        library = "deepgemm" if "DeepGEMM" in precision else "torch"
        yield from _rows(rows, gpu, precision, library, rows.number("latency_seconds"))


def best_gemm(table: Table) -> Iterator[MeasuredRows]:
    """``micro_mamf_best_gemm``: the fastest shape of a search, so an upper end by construction."""
    for (gpu, precision), rows in table.groups("gpu", "dtype"):
        yield from _rows(rows, gpu, precision, "torch", rows.number("latency_seconds"))


def deepgemm_dense(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_deepgemm_h800``, dense rows; the grouped ones are in ``moe``."""
    dense = table.where(table.text("op") == "dense")
    named = Table(dense.file, {**dense.columns, "m": dense.columns["m_per_group"]}, dense.index)
    for (gpu, precision), rows in named.groups("gpu", "precision"):
        yield from _rows(rows, gpu, precision, "deepgemm", rows.number("derived_seconds"))


def simumax(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_simumax_efficiency``, matmul rows: training GEMMs, with FP32 accumulation into gradients."""
    for (gpu, output), rows in table.where(table.text("op") == "matmul").groups("gpu", "output_dtype"):
        yield from _rows(
            rows, gpu, "bf16", "torch", rows.number("derived_seconds"),
            count=rows.number("batch", 1.0), output_bytes=8.0 if output == "fp32" else 2.0,
            variant="accumulate" if output == "fp32" else "",
        )  # fmt: skip


def llmcompass(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_llmcompass_a100``, matmul rows."""
    rows = table.where(table.text("op") == "matmul")
    m, n, k = rows.number("dim_m"), rows.number("dim_n"), rows.number("dim_k")
    for number, gpu in enumerate(np.unique(rows.text("gpu"))):
        mask = rows.text("gpu") == gpu
        chip = chip_name(str(gpu))
        if chip is not None:
            part = gemm(m[mask], n[mask], k[mask], SAME_RATE["fp16"])
            groups = shape_groups(n[mask], k[mask]) + number
            seconds = rows.number("latency_seconds")[mask]
            yield MeasuredRows(rows.file, chip, "torch", rows.index[mask], (part,), seconds, groups)
