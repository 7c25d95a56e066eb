"""Gated DeltaNet and its relatives: chunked form (prefill, training) and recurrent form (decode).

Chunked (chunk c, heads h, length T, dims dk and dv), per token and head:

    flops   = 2 × c × (2 dk + dv) + 4 × dk × dv     in the chunk (scores, solve, output); state
    bytes   = inputs and outputs + spill × (stages + a state a chunk, written and read) + states in and out
    stages  = 2 × (dk + 2 dv) × 2 bytes         what the solve leaves for the state: w, u and the new values
    chain   = max(1, h ÷ (side × multiprocessors)) × T ÷ c × step     the state passes from chunk to chunk
    handled = bytes ÷ (move × multiprocessors × clock)
    solve   = min(T, c) × row                   the triangular solve in a chunk goes row by row
    time    = (kernels × floor + chain + solve) ÷ clock + |flops ÷ sustained, handled, memory|   (``memory_path.py``)

``side`` heads are walked side by side on one multiprocessor; where a kernel walks one head at a time to its end
(``whole``: FlashInfer's), chain = ⌈h ÷ multiprocessors⌉ × (begin + solve + T ÷ c × step), and
products and memory pass meanwhile. ``|…|`` is the norm of
order ``SHARP``.

``spill`` is how much of the intermediates goes through memory: about 1 for one kernel a stage, 0 for one fused
kernel. Recurrent: the state (dk × dv FP32 a head) is read and written once a call; each token is a dependent
step. Backward is 2.5 times the arithmetic and twice the traffic (not fitted: no measurement of it alone).

Fitted on A100, H100 and B200, 1 to 1,024 sequences. Heads left out, weighted by time: recurrent 1 to 21 % median,
chunked 4 to 27 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Limit, Times
from windtunnel.cost.memory_path import memory_seconds
from windtunnel.cost.peaks import sustained_flops
from windtunnel.specs.schema import Chip

CHUNK_KERNELS = 6.0  # cumulative gate, scores, solve, recompute w and u, state pass, output
STATE_BYTES = 4.0
SHARP = 4.0  # order of the norm: arithmetic and memory overlap


@dataclass(frozen=True, slots=True)
class DeltanetParameters:
    """FLOPs and bytes a clock, fractions (bandwidth, intermediates), heads (side), clocks (a step, a floor)."""

    issue: float
    move: float
    dram: float
    spill: float
    side: float
    step_clocks: float
    row_clocks: float
    floor_clocks: float
    begin_clocks: float
    whole: bool

    @classmethod
    def of(cls, fit: Fit) -> DeltanetParameters:
        """The parameters of a fit."""
        numbers = {name: fit.value(name) for name in cls.__slots__ if name not in ("begin_clocks", "whole")}
        begin = fit.value("begin_clocks", 0.0)
        return cls(**numbers, begin_clocks=begin, whole=fit.value("whole", 0.0) > 0)


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of DeltaNet works; dims batch, heads, q_len, qk_dim, v_dim, chunk, backward."""
    p = DeltanetParameters.of(fit)
    chunk, length = batch.dim("chunk"), np.maximum(batch.dim("q_len", 1), 1.0)
    chunked = chunk > 0
    step_tokens = np.where(chunked, np.maximum(chunk, 1.0), 1.0)
    heads = batch.dim("batch", 1) * batch.dim("heads", 1)
    dk, dv = batch.dim("qk_dim", 1), batch.dim("v_dim", 1)
    backward = np.where(batch.dim("backward") > 0, 1.0, 0.0)
    inside = 2.0 * step_tokens * (2.0 * dk + dv) * chunked
    flops = heads * length * (inside + 4.0 * dk * dv) * (1.0 + 1.5 * backward)
    steps = np.ceil(length / step_tokens)
    states = heads * dk * dv * 2.0 * STATE_BYTES
    inner_states = heads * dk * dv * steps * 2.0 * 2.0  # BF16, written by one stage and read by the next
    stages = 2.0 * heads * length * (dk + 2.0 * dv) * 2.0  # BF16: w, u and new values, each written and read
    spilled = np.where(chunked, p.spill * (stages + inner_states), 0.0)
    moved = (batch.bytes_moved + spilled + states) * (1.0 + backward)
    units, clock = chip.multiprocessors.value, chip.clock_hz.value
    cold = batch.variant == "recurrent" and fit.value("repeats", 0.0) == 0
    footprint = 2.0 * batch.bytes_moved + inner_states / 2.0 + states  # every intermediate once
    memory = memory_seconds(moved, chip, dram=p.dram, footprint=footprint, cold=cold)
    handled = moved / (p.move * units * clock)
    compute = flops / sustained_flops(chip, batch.precision, p.issue)
    kernels = np.where(chunked, CHUNK_KERNELS * (1.0 + backward), 1.0)
    solved = p.row_clocks * np.minimum(length, step_tokens) * chunked
    streamed = (memory**SHARP + handled**SHARP + compute**SHARP) ** (1.0 / SHARP)
    floor = kernels * p.floor_clocks / clock
    if p.whole:
        chain = np.ceil(heads / units) * (p.begin_clocks + solved + p.step_clocks * steps) / clock
        body, fixed = (streamed**SHARP + chain**SHARP) ** (1.0 / SHARP), floor
    else:
        chain = np.maximum(heads / (p.side * units), 1.0) * p.step_clocks * steps + solved
        body, fixed = streamed, floor + chain / clock
    limit = np.where(compute > memory, int(Limit.COMPUTE), int(Limit.MEMORY))
    return Times(body + fixed, np.where(body >= fixed, limit, int(Limit.LATENCY)))
