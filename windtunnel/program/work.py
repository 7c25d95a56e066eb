"""What an operation asks of a chip: FLOPs, bytes, and the dimensions that a cost model needs.

This module only holds the type; ``program/count/`` computes it from an ``OpSpec``, in one place for the
whole project. Recipes and measured tables build ``Work`` through the same constructors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """Kernel families: each has one cost model (``cost/<family>.py``)."""

    GEMM = "gemm"  # dims: m n k batch
    GROUPED_GEMM = "grouped_gemm"  # dims: tokens n k experts top_k (tokens = rows over all experts)
    CONVOLUTION = "convolution"  # dims: m n k batch (implicit GEMM)
    ATTENTION = "attention"  # dims: batch heads kv_heads q_len kv_len qk_dim v_dim causal window
    ATTENTION_BACKWARD = "attention_backward"  # the same dims
    DECODE_ATTENTION = "decode_attention"  # the same dims, q_len small; + kv_bytes_per_token
    DELTANET = "deltanet"  # dims: batch heads q_len qk_dim v_dim chunk (0: recurrent) backward
    NORM = "norm"  # dims: rows columns
    SOFTMAX = "softmax"  # dims: rows columns
    POINTWISE = "pointwise"  # dims: elements ops
    REDUCTION = "reduction"  # dims: rows columns
    EMBEDDING = "embedding"  # gather of rows; dims: rows columns
    SCATTER = "scatter"  # indexed writes, atomics; dims: rows columns
    SORT = "sort"  # sort, topk; dims: rows columns
    SCAN = "scan"  # cumsum and the like; dims: rows columns
    OPTIMIZER = "optimizer"  # dims: elements tensors
    RANDOM = "random"
    COPY = "copy"  # on-device copy, cast, transpose, fill
    HOST_COPY = "host_copy"  # over PCIe; attribute direction
    FFT = "fft"  # dims: batch length
    LINALG = "linalg"  # dims: m n k batch
    COLLECTIVE = "collective"  # priced by network/, not by cost/
    VIEW = "view"  # metadata only: host time, no kernel
    HOST = "host"  # marks, events, synchronisation
    UNKNOWN = "unknown"  # priced from its bytes, marked assumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one operation asks of a chip.

    Attributes:
        flops: multiply and add counted as two, as ``torch.utils.flop_counter`` counts; 0 for
            operations it does not count (their arithmetic is in ``vector_flops``).
        vector_flops: arithmetic of the vector units (pointwise, norms, softmax).
        bytes_read, bytes_written: least traffic to memory: each input and output once.
        precision: key into ``Chip.peak_flops`` of the matrix product: fp8, bf16, fp16, tf32, fp32,
            fp64, int8, fp4. ``fp32`` becomes tf32 at pricing time where ``allow_tf32`` holds.
        kernels: how many kernels a real stack launches for it (0: none, a view or a mark).
        variant: kernel path where one family has several (``flash``, ``math``, ``block128``, ...).
    """

    family: Family
    flops: float = 0.0
    vector_flops: float = 0.0
    bytes_read: float = 0.0
    bytes_written: float = 0.0
    precision: str = "fp32"
    kernels: int = 1
    variant: str = ""
    dims: tuple[tuple[str, float], ...] = ()

    def dim(self, name: str, default: float = 0.0) -> float:
        """The dimension called ``name``."""
        for key, value in self.dims:
            if key == name:
                return value
        return default

    @property
    def bytes_moved(self) -> float:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written
