"""Tensor parallelism as PyTorch's DTensor runs it: activations change hands where modules begin and end.

`parallelize_module` and TorchTitan gather a module's input once for all its products and keep what they gathered for
the weight gradients, where Megatron-LM and Transformer Engine gather again backward. Nothing runs beside these
exchanges unless products are pipelined with them (asynchronous tensor parallelism). NCCL joins and cuts the first
dimension, activations are cut in the second: with several sequences what was gathered is copied into place, and sums
are always copied before they are scattered (``torch.distributed._functional_collectives``).

    with sequence parallelism      gathered on entry, scattered on exit; backward the other way round
    without                        nothing on entry, summed on exit; backward summed at the entry
    parameters that are not split  their gradients are summed where ranks saw different tokens or different heads
"""

from __future__ import annotations

from dataclasses import replace

from windtunnel.program.op import OpSpec
from windtunnel.recipes.groups import TENSOR
from windtunnel.recipes.layout import Layout, Precision
from windtunnel.recipes.piece import Piece, collective, op, tensor

Ops = tuple[OpSpec, ...]
FP8 = "float8_e4m3fn"


def at_boundaries(layout: Layout) -> bool:
    """Whether exchanges are pieces of their own, in front of and behind a module's products."""
    pipelined = layout.overlap_tensor and layout.sequence_parallel
    return layout.tensor > 1 and layout.by_dtensor and not pipelined


def enter(layout: Layout, name: str, width: int) -> tuple[Piece, ...]:
    """In front of column-parallel products: the tokens of all ranks; backward their gradients are summed."""
    if not at_boundaries(layout):
        return ()
    if not layout.sequence_parallel:
        return replicated(layout, name, width)
    return (
        Piece(
            f"{name} gather",
            gather(layout, width),
            (*cut(layout, width), *scatter(layout, width)),
        ),
    )


def replicated(layout: Layout, name: str, width: int) -> tuple[Piece, ...]:
    """In front of column-parallel products of an input that every rank has whole."""
    if not at_boundaries(layout):
        return ()
    return (Piece(f"{name} sum", (), summed(layout, layout.tokens, width)),)


def leave(layout: Layout, name: str, width: int) -> tuple[Piece, ...]:
    """Behind a row-parallel product: its sums, shared out over the sequence. Per-operation recomputation keeps them."""
    if not at_boundaries(layout):
        return ()
    if not layout.sequence_parallel:
        return (Piece(f"{name} sum", summed(layout, layout.tokens, width)),)
    return (
        Piece(f"{name} copy", cut(layout, width)),
        Piece(f"{name} scatter", scatter(layout, width), gather(layout, width)),
    )


def leaves(name: str) -> tuple[str, ...]:
    """Names of the pieces that ``leave`` makes."""
    return f"{name} sum", f"{name} copy", f"{name} scatter"


def gather(layout: Layout, width: int) -> Ops:
    """The tokens of all ranks, copied into place where there are several sequences.

    Compiled 8-bit products gather their inputs in 8 bits (TorchAO's float8 tensor parallelism).
    """
    narrow = layout.fused and layout.precision in (Precision.FP8, Precision.MXFP8)
    dtype = FP8 if narrow else layout.precision.activation
    part, whole = tensor(dtype, layout.sequence_tokens, width), tensor(dtype, layout.tokens, width)
    there = collective("_allgather_base_", TENSOR, part, whole)
    return (there, op("aten.cat", (part,) * layout.tensor, (whole,))) if layout.micro_batch > 1 else (there,)


def cut(layout: Layout, width: int) -> Ops:
    """Tokens laid out rank by rank."""
    dtype = layout.precision.activation
    part, whole = tensor(dtype, layout.sequence_tokens, width), tensor(dtype, layout.tokens, width)
    return (op("aten.cat", (part,) * layout.tensor, (whole,)),)


def scatter(layout: Layout, width: int) -> Ops:
    """Sums of a rank's own tokens."""
    dtype = layout.precision.activation
    part, whole = tensor(dtype, layout.sequence_tokens, width), tensor(dtype, layout.tokens, width)
    return (collective("_reduce_scatter_base_", TENSOR, whole, part),)


def summed(layout: Layout, *shape: int) -> Ops:
    """A sum over the tensor-parallel ranks, in the type of activations."""
    whole = tensor(layout.precision.activation, *shape)
    return (collective("allreduce_", TENSOR, whole, whole),)


def with_summed_weights(piece: Piece, layout: Layout, *shape: int) -> Piece:
    """The same piece, whose parameters of ``shape`` are on every rank and see a part of the tokens or heads on each."""
    if layout.tensor == 1 or not layout.by_dtensor or not layout.trains_base:
        return piece
    wide = layout.shards_stages and layout.reduce_in_fp32  # as micro-batches' gradients are added up
    whole = tensor("float32" if wide else layout.precision.activation, *shape)
    return replace(piece, summed=(collective("allreduce_", TENSOR, whole, whole),))
