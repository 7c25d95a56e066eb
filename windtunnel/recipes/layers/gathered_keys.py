"""Context parallelism of TorchTitan's flex attention: every rank gathers keys and values whole.

Follows ``flex_cp_allgather`` (torch/distributed/tensor/experimental/_context_parallel): one all-gather for the keys and
one for the values, each laid out anew along the sequence; backward lays the whole gradients out by rank and
scatters their sums. Queries are dealt out in blocks so that every rank has the same share of the mask.
"""

from __future__ import annotations

from windtunnel.program import kernels
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.recipes.groups import CONTEXT
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.piece import collective, op, tensor

BLOCK = 128
"""Rows and columns of a block of flex attention's mask: those on the diagonal are computed whole."""


def gathered_core(
    layout: Layout, heads: tuple[int, int], qk_dim: int, v_dim: int, window: int, causal: bool
) -> tuple[tuple[OpSpec, ...], tuple[OpSpec, ...]]:
    """Forward and backward. ``heads``: of queries, and of keys and values, on this rank."""
    dtype, batch, length = layout.precision.activation, layout.micro_batch, layout.sequence
    own, (queries, kv_heads) = length // layout.context, heads
    dims = qk_dim, v_dim
    wholes = [tensor(dtype, batch, length, kv_heads, dim) for dim in dims]
    shares = [tensor(dtype, batch, own, kv_heads, dim) for dim in dims]
    q, out = (tensor(dtype, batch, queries, own, dim) for dim in dims)
    k, v = (tensor(dtype, batch, kv_heads, length, dim) for dim in dims)
    sums = tensor("float32", batch, queries, own)
    kept = {"density": computed_share(length, layout.segment, window, causal)}
    forward: list[OpSpec] = []
    backward = [op(kernels.FLEX_ATTENTION_BACKWARD, (out, q, k, v, out, sums), (q, k, v), **kept)]
    for share, whole in zip(shares, wholes, strict=True):
        forward += [collective("_allgather_base_", CONTEXT, share, whole), _laid_out(whole)]
        backward += [_laid_out(whole), collective("_reduce_scatter_base_", CONTEXT, whole, share)]
    forward.append(op(kernels.FLEX_ATTENTION, (q, k, v), (out, sums), **kept))
    return tuple(forward), tuple(backward)


def computed_share(length: int, segment: int, window: int, causal: bool) -> float:
    """Share of the mask's blocks that are computed, of a sequence, or of packed ones of ``segment`` tokens."""
    if not causal:
        return 1.0
    blocks = max(1, (segment or length) // BLOCK)
    rows = (blocks + 1) / 2
    if window:
        reach = min(blocks, -(-window // BLOCK) + 1)
        rows = reach - reach * (reach - 1) / (2 * blocks)
    return min(1.0, rows * BLOCK / length)


def _laid_out(whole: TensorSpec) -> OpSpec:
    return op("aten.cat", (whole,), (whole,))
