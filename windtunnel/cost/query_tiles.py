"""How many rows of queries one block of a prefill kernel takes: the rule of each kernel.

Every block loads all keys and values that its rows see, and does the addresses and barriers around them, so that few
rows make them dear. Kernels choose by head dimension and by what fits into shared memory:

    128        FlashAttention, cuDNN, TensorRT-LLM: 128 rows, or near it
    Triton     SGLang's extend kernel: 128 rows, 64 and 32 for wide heads or where shared memory is 100 KB
               (its ``extend_attention``)
    Triton 16  vLLM's unified kernel: 16 rows, the heads that share a KV head among them
               (its ``triton_unified_attention``)
    paged      FlashAttention 2 over a paged cache, as vLLM calls it: 64 rows (``occupancy.py``)
    FlashInfer 128, 64 or 16 rows by how many the queries of a sequence and the heads that share a KV head make
               together; heads of 256 at most 64 (``FA2DetermineCtaTileQ``)
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.cost.occupancy import PAGED_ROWS, USUAL_BYTES, paged_blocks, paged_bytes, paged_keys
from windtunnel.specs.schema import Chip

USUAL, TRITON, TRITON_16, PAGED, FLASHINFER = 0, 1, 2, 3, 4
PACKING = frozenset({TRITON_16, FLASHINFER})
"""Rules under which the heads that share a KV head are rows of one tile."""
ROWS = 128.0
LITTLE, MUCH = 110e3, 200e3
"""Shared memory in bytes: Ada and workstation chips have less than the first, Hopper and Blackwell more than the
second."""


def rule_of(library: str) -> int:
    """The rule that the kernel of a library, ``kernel@harness``, follows."""
    kernel, _, harness = library.partition("@")
    if library == "fa2@vllm":
        return PAGED
    if kernel == "flashinfer" and harness in ("vllm", "sglang"):
        return FLASHINFER
    if kernel != "triton":
        return USUAL
    return TRITON_16 if harness == "vllm" else TRITON


def rows(rule: int, dim: Floats, chip: Chip, together: Floats | float = ROWS) -> Floats:
    """Rows of queries of one block, for head dimensions ``dim``.

    Args:
        together: queries of a sequence times the heads that share a KV head.
    """
    if rule == USUAL:
        return np.full_like(dim, ROWS)
    if rule == PAGED:
        return np.full_like(dim, PAGED_ROWS)
    if rule == FLASHINFER:
        return np.where((together > 64) & (dim < 256), 128.0, np.where(together > 16, 64.0, 16.0))
    if rule == TRITON_16:
        return np.full_like(dim, 16.0)
    memory = chip.shared_memory_bytes.value
    if memory < LITTLE:
        return np.where(dim <= 256, 64.0, 32.0)
    if memory < MUCH:
        return np.where(dim <= 128, 128.0, np.where(dim <= 256, 64.0, 32.0))
    return np.where(dim <= 256, 128.0, 32.0)


def blocks_held(rule: int, dim: Floats, chip: Chip) -> Floats:
    """Blocks that a multiprocessor holds at once, where that is stated; 1 where what a block costs to begin was fitted
    for the multiprocessor as a whole.
    """
    if rule == PAGED:
        return paged_blocks(dim, chip)
    return np.full_like(dim, 2.0 if rule == FLASHINFER else 1.0)  # FlashInfer sizes its tiles of keys for two


def begins(rule: int, dim: Floats, tile: Floats) -> Floats:
    """What a block loads before it begins, against one of 128 rows."""
    if rule == PAGED:
        return np.asarray(paged_bytes(dim) / USUAL_BYTES)
    return np.asarray((np.maximum(tile, PAGED_ROWS) if rule == FLASHINFER else tile) / ROWS)


def keys_together(rule: int, dim: Floats) -> Floats:
    """Keys that a block computes together, where that is stated; 1 elsewhere."""
    return paged_keys(dim) if rule == PAGED else np.ones_like(dim)


def padded_dim(rule: int, dim: Floats) -> Floats:
    """Elements of a head that are computed: Triton's tiles are powers of two wide."""
    if rule not in (TRITON, TRITON_16):
        return dim
    return np.asarray(np.exp2(np.ceil(np.log2(np.maximum(dim, 1.0)))))
