"""Every row of the kernel tables as work on a chip by a library: file name and columns in, rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from windtunnel.validation.kernel_rows import (
    attention,
    copies,
    deltanet,
    gemm,
    layers,
    mla,
    moe,
    moore_threads,
    simumax,
    torch_ops,
)
from windtunnel.validation.measured import MeasuredRows
from windtunnel.validation.tables import Table, read_table

Reader = Callable[[Table], Iterator[MeasuredRows]]

READERS: dict[str, tuple[Reader, ...]] = {
    "kernel_aic_gemm": (gemm.aiconfigurator,),
    "kernel_infersim_gemm": (gemm.infersim,),
    "kernel_deepgemm_h800": (gemm.deepgemm_dense, moe.deepgemm),
    "kernel_simumax_efficiency": (gemm.simumax, simumax.attention_rows, simumax.grouped_rows),
    "micro_driver_launch_copy": (copies.rows,),
    "s5000_measured": (moore_threads.rows,),
    "s5000_end_to_end": (moore_threads.kernels_in_words,),
    "kernel_llmcompass_a100": (gemm.llmcompass, layers.llmcompass),
    "micro_mamf_best_gemm": (gemm.best_gemm,),
    "kernel_aic_context_attention": (attention.context,),
    "kernel_aic_generation_attention": (attention.generation,),
    "kernel_flash_attention": (attention.flash_charts,),
    "kernel_infersim_attention": (attention.infersim,),
    "kernel_aic_mla": (mla.aiconfigurator,),
    "kernel_aic_moe": (moe.aiconfigurator,),
    "kernel_infersim_grouped_gemm": (moe.infersim, moe.infersim_down),
    "kernel_aic_gated_deltanet": (deltanet.aiconfigurator,),
    "kernel_infersim_gdn": (deltanet.infersim,),
    "kernel_fla_gb200": (deltanet.linear_attention, attention.beside_linear_attention),
    "kernel_vidur_mlp_ops": (layers.vidur,),
    "kernel_torch_ops": (torch_ops.rows,),
}
"""File name without suffix → how its rows are read."""


def kernel_files(folder: Path) -> list[Path]:
    """The kernel tables in ``folder``, by name."""
    return sorted(
        path for path in folder.iterdir() if path.stem in READERS and path.suffix in (".csv", ".parquet")
    )


def measured_rows(path: Path) -> list[MeasuredRows]:
    """The rows of one table that can be predicted, grouped by chip, library and kernel path."""
    table = read_table(path)
    if not len(table):
        return []
    return [rows for reader in READERS[path.stem] for rows in reader(table) if len(rows)]


def rows_of_folder(folder: Path, stems: Sequence[str] = ()) -> list[MeasuredRows]:
    """The rows of all kernel tables in a folder, or of those named, that parameters may be fitted to."""
    paths = [path for path in kernel_files(folder) if not stems or path.stem in stems]
    return [rows for path in paths for rows in measured_rows(path) if not rows.host_s]
