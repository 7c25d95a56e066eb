"""What kernels of few blocks in flight add to a product: Triton's experts (``tiles.py``: menus that wait).

    wait      = ⌈tiles ÷ (multiprocessors × resident)⌉ × ⌈k ÷ depth⌉ × step ÷ clock
    resident  = registers of a multiprocessor ÷ three times the accumulators of a block, 1 to 8
    gathered  = gathered × rows × k × element × (⌈n ÷ tn⌉ − 1) × miss(distinct rows × k × element)

A block alone waits for each of its steps through K, about 500 clocks (``step``) on A100 and H100 alike, which is what
few tokens show; blocks beside it on the multiprocessor hide it. Rows of an expert are gathered from the tokens of the
layer: while those fit into the level-2 cache, all columns of tiles find them there, beyond it a share (``gathered``) of
the reads goes to memory: tables on A100 fall from 120 to 75 TFLOP/s where 3,000 tokens of 12 KB stop fitting.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.cost.memory_path import missed
from windtunnel.specs.schema import Chip

REGISTER_BYTES = 262_144.0
"""Registers of a multiprocessor since Volta, NVIDIA's white papers."""
SHARE_OF_SUMS = 3.0
"""Registers of a block over those of its FP32 sums: operands and addresses take twice as many again (assumed)."""
RESIDENT_MAX = 8.0
"""Blocks of four warps beyond which more add no bytes in flight, about (assumed)."""


def resident(rows: Floats, columns: Floats) -> Floats:
    """Blocks of a tile shape that a multiprocessor holds at once."""
    sums = 4.0 * rows * columns
    return np.asarray(np.clip(np.floor(REGISTER_BYTES / (SHARE_OF_SUMS * sums)), 1.0, RESIDENT_MAX))


def wait_s(tiles: Floats, steps: Floats, at_once: Floats, chip: Chip, step_clocks: float) -> Floats:
    """Seconds that blocks wait for their ``steps`` through K, ``at_once`` of them on a multiprocessor."""
    rounds = np.ceil(tiles / (chip.multiprocessors.value * at_once))
    return np.asarray(rounds * steps * (step_clocks / chip.clock_hz.value))


def gathered_bytes(
    rows: Floats, row_bytes: Floats, strips: Floats, distinct: Floats, chip: Chip, share: float
) -> Floats:
    """Bytes that come from memory again for every column of tiles after the first."""
    return np.asarray(share * rows * row_bytes * (strips - 1.0) * missed(distinct * row_bytes, chip))
