"""Rows of Gated DeltaNet tables: aiconfigurator, InferSim, flash-linear-attention."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured import MeasuredRows, batch, shape_groups
from windtunnel.validation.tables import Table

CHUNK = 64.0
LANE_TOKENS = 1024.0  # 128 threads of 8 elements


def delta_rule(
    sequences: Floats,
    length: Floats,
    k_heads: Floats,
    v_heads: Floats,
    dim: Floats,
    *,
    chunk: float,
    backward: bool = False,
) -> Batch:
    """The gated delta rule over sequences; keys of ``k_heads`` are shared by groups of value heads."""
    tokens = sequences * length
    inputs = tokens * (2.0 * k_heads * dim + v_heads * dim) * 2.0 + tokens * v_heads * 2.0 * 4.0
    return batch(
        Family.DELTANET,
        "bf16",
        {
            "batch": sequences,
            "heads": v_heads,
            "q_len": length,
            "qk_dim": dim,
            "v_dim": dim,
            "chunk": chunk,
            "backward": float(backward),
        },
        bytes_read=inputs,
        bytes_written=tokens * v_heads * dim * 2.0,
        kernels=(10.0 if backward else 6.0) if chunk else 1.0,
        variant="chunk" if chunk else "recurrent",
    )


def short_convolution(
    sequences: Floats, length: Floats, channels: Floats, taps: float = 4.0, *, lanes: bool = False
) -> Batch:
    """Causal depthwise convolution; with one token it reads and writes the state of ``taps`` too.

    ``lanes``: the kernel gives every channel of every sequence a block of its own, which walks
    ``LANE_TOKENS`` tokens at a time.
    """
    elements = sequences * length * channels
    state = np.where(length == 1, sequences * channels * taps * 2.0, 0.0)
    return batch(
        Family.POINTWISE,
        "bf16",
        {"elements": elements, "lanes": sequences * channels * np.ceil(length / LANE_TOKENS) * float(lanes)},
        vector_flops=2.0 * taps * elements,
        bytes_read=elements * 2.0 + state,
        bytes_written=elements * 2.0 + state,
        variant="short_convolution",
    )


BY_CHANNEL = frozenset({("sglang", "0.5.10")})
"""Releases that run a kernel like TensorRT-LLM's (a block a channel), measured on the channels of the keys alone: their
times depend on neither values nor model. It is a program of its own: on A100 a block takes 850 clocks, TensorRT-LLM's
460 on H100 and B200 alike.
"""


def aiconfigurator(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_aic_gated_deltanet``: one row a sub-kernel."""
    names = ("gpu_system", "library", "library_version", "kernel_source")
    for (gpu, library, version, kernel), rows in table.groups(*names):
        chip = chip_name(gpu)
        if chip is None:
            continue
        sequences, length = rows.number("batch_size"), rows.number("seq_len")
        k_heads, v_heads = rows.number("num_k_heads"), rows.number("num_v_heads")
        dim = rows.number("head_k_dim")
        if "conv1d" in kernel:
            by_channel = library == "trtllm" or (library, version) in BY_CHANNEL
            channels = k_heads * dim if by_channel else (2.0 * k_heads + v_heads) * dim
            part = short_convolution(sequences, length, channels, lanes=by_channel and "update" not in kernel)
            caller = "sglang-by-channel" if by_channel and library == "sglang" else library
            name = f"{caller}/{'update' if 'update' in kernel else 'conv'}"
        else:
            chunk = CHUNK if "chunk" in kernel else 0.0
            part = delta_rule(sequences, length, k_heads, v_heads, dim, chunk=chunk)
            name = "flashinfer" if "flashinfer" in kernel else "trtllm" if library == "trtllm" else "fla"
        yield MeasuredRows(
            rows.file,
            chip,
            name,
            rows.index,
            (part,),
            rows.number("latency_seconds"),
            shape_groups(k_heads, v_heads),
        )


def infersim(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_infersim_gdn``: convolutions and updates; the stages of the chunked form are not priced one by one."""
    for (gpu, kernel), rows in table.groups("gpu", "sub_kernel"):
        chip = chip_name(gpu)
        if chip is None or kernel not in ("conv", "gdn_update"):
            continue
        sequences, length = rows.number("batch_size", 1.0), rows.number("seq_len", 1.0)
        k_heads, v_heads, dim = rows.number("k_heads"), rows.number("v_heads"), rows.number("k_head_dim")
        if kernel == "conv":
            part, name = short_convolution(sequences, length, (2.0 * k_heads + v_heads) * dim), "sglang/conv"
        else:
            part, name = delta_rule(sequences, length, k_heads, v_heads, dim, chunk=0.0), "fla"
        yield MeasuredRows(
            rows.file, chip, name, rows.index, (part,), rows.number("latency_seconds"), shape_groups(v_heads)
        )


def linear_attention(table: Table) -> Iterator[MeasuredRows]:
    """``kernel_fla_gb200``: the Gated DeltaNet rows, forward and forward plus backward."""
    for (gpu, phase), rows in table.where(table.text("operation") == "chunk_gdn").groups("gpu", "phase"):
        chip = chip_name(gpu)
        if chip is None:
            continue
        heads, dim = rows.number("heads"), rows.number("head_dim")
        sequences, length = rows.number("batch_size"), rows.number("sequence_length_tokens")
        kinds = (False, True) if "backward" in phase else (False,)
        parts = tuple(
            delta_rule(sequences, length, heads, heads, dim, chunk=CHUNK, backward=kind) for kind in kinds
        )
        yield MeasuredRows(
            rows.file,
            chip,
            "fla",
            rows.index,
            parts,
            rows.number("latency_seconds"),
            shape_groups(heads, length),
        )
