"""Memory inside the allocator that no operation of a recording shows: workspaces of the math libraries.

PyTorch takes one workspace per cuBLAS handle and stream from the caching allocator at the first product:
4096 KiB × 2 + 16 KiB × 8 before compute capability 9.0, 4096 KiB × 8 from 9.0 on
(aten/src/ATen/cuda/CublasHandlePool.cpp). cuBLASLt shares it. Fused attention kernels of the recording carry
their outputs (log-sum-exp included) as ordinary storages and need nothing beyond.
"""

from __future__ import annotations

import numpy as np

from windtunnel.program.program import Program
from windtunnel.program.work import Family
from windtunnel.specs.schema import Chip, Vendor
from windtunnel.units import KIB

BLAS_WORKSPACE_BYTES = (4096 * 2 + 16 * 8) * KIB
BLAS_WORKSPACE_HOPPER_BYTES = 4096 * 8 * KIB

_MATRIX_PRODUCTS = (Family.GEMM, Family.GROUPED_GEMM)


def blas_workspace_bytes(chip: Chip) -> int:
    """Workspace of one handle on one stream. Assumed for MUSA to be as before 9.0: undisclosed."""
    if chip.vendor is Vendor.NVIDIA and chip.compute_capability >= (9, 0):
        return BLAS_WORKSPACE_HOPPER_BYTES
    return BLAS_WORKSPACE_BYTES


def hidden_bytes(program: Program, chip: Chip) -> int:
    """Workspaces of all streams on which the program multiplies matrices."""
    multiplies = np.array([work.family in _MATRIX_PRODUCTS for work in program.works], dtype=bool)
    if not multiplies.any():
        return 0
    sites = program.sites[multiplies[program.sites[:, 0]]]
    return len(np.unique(sites[:, 1])) * blas_workspace_bytes(chip)
