"""How many blocks of an attention kernel a multiprocessor holds at once, where the kernel's source states what a block
takes of shared memory.

FlashAttention 2 over a paged cache (as vLLM calls it, in prefill and decode alike: the kernels that can split keys)
keeps 64 rows of queries and one tile of keys and of values: 256 keys of heads up to 64, 128 up to 128, 64 beyond
(``run_mha_fwd_splitkv_dispatch``). That is 72 to 96 KB: two blocks on an A100's 164 KB, three on an H100, one on the
100 KB of Ada. A block that waits for its first tiles leaves the multiprocessor idle unless another is there.

Other kernels choose their tiles by what fits: what begins a block of theirs is fitted for a multiprocessor as a whole.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.specs.schema import Chip

PAGED_ROWS = 64.0
"""Rows of queries of a block."""
RESERVED_BYTES = 1024.0
"""What the driver takes of shared memory for every block (CUDA programming guide, 16.7)."""
USUAL_BYTES = (PAGED_ROWS + 2.0 * 128.0) * 128.0 * 2.0
"""Shared memory of a block for heads of 128."""
_BYTES = 2.0


def paged_keys(dim: Floats) -> Floats:
    """Keys of one tile, for heads of ``dim``."""
    return np.where(dim <= 64, 256.0, np.where(dim <= 128, 128.0, 64.0))


def paged_bytes(dim: Floats) -> Floats:
    """Shared memory in bytes of one block over heads of ``dim``."""
    return np.asarray((PAGED_ROWS + 2.0 * paged_keys(dim)) * dim * _BYTES)


def paged_blocks(dim: Floats, chip: Chip) -> Floats:
    """Blocks that one multiprocessor holds; one at least."""
    fits = np.floor(chip.shared_memory_bytes.value / (paged_bytes(dim) + RESERVED_BYTES))
    return np.asarray(np.maximum(fits, 1.0))
