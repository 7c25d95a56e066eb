"""How many rows of queries one block of a prefill kernel takes: the rule of each kernel.

Every block loads all keys and values that its rows see, and does the addresses and barriers around them, so that few
rows make them dear. Kernels choose by head dimension and by what fits into shared memory:

    128        FlashAttention, cuDNN, TensorRT-LLM: 128 rows, or near it
    Triton     SGLang's extend kernel: 128 rows, 64 and 32 for wide heads or where shared memory is 100 KB
               (its ``extend_attention``)
    Triton 16  vLLM's unified kernel: 16 rows, the heads that share a KV head among them
               (its ``triton_unified_attention``)
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.specs.schema import Chip

USUAL, TRITON, TRITON_16 = 0, 1, 2
ROWS = 128.0
LITTLE, MUCH = 110e3, 200e3
"""Shared memory in bytes: Ada and workstation chips have less than the first, Hopper and Blackwell more than the
second."""


def rule_of(library: str) -> int:
    """The rule that the kernel of a library, ``kernel@harness``, follows."""
    kernel, _, harness = library.partition("@")
    if kernel != "triton":
        return USUAL
    return TRITON_16 if harness == "vllm" else TRITON


def rows(rule: int, dim: Floats, chip: Chip) -> Floats:
    """Rows of queries of one block, for head dimensions ``dim``."""
    if rule == USUAL:
        return np.full_like(dim, ROWS)
    if rule == TRITON_16:
        return np.full_like(dim, 16.0)
    memory = chip.shared_memory_bytes.value
    if memory < LITTLE:
        return np.where(dim <= 256, 64.0, 32.0)
    if memory < MUCH:
        return np.where(dim <= 128, 128.0, np.where(dim <= 256, 64.0, 32.0))
    return np.where(dim <= 256, 128.0, 32.0)
