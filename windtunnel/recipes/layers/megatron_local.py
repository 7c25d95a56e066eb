"""Megatron-core's own modules of PyTorch's operations (its "local" specification), where they differ from other code.

Rotary embeddings are turned by halves and joined with what is not turned, even if that is nothing; latent attention
brings even and odd numbers apart first. Gate and up are one product, and one is added to the gate's other half even
where that is 0. Experts weigh their inner results, one expert after another; tokens and their weights travel apart.
AdamW and clipping are PyTorch's, tensor by tensor in lists.
"""

from __future__ import annotations

from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.recipes.architecture import MoeFfn
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.piece import Piece, op, tensor

Ops = tuple[OpSpec, ...]


def rotary(name: str, dtype: str, tokens: int, heads: tuple[int, ...], dim: int, latent: bool) -> Piece:
    """Queries and keys turned; ``latent``: even and odd numbers are brought apart before."""
    forward: list[OpSpec] = []
    backward: list[OpSpec] = []
    for count in heads:
        there, back = _turned(dtype, tokens, count, dim, latent)
        forward += there
        backward += back
    return Piece(name, tuple(forward), tuple(backward))


def _turned(dtype: str, tokens: int, heads: int, dim: int, latent: bool) -> tuple[list[OpSpec], list[OpSpec]]:
    x, half = tensor(dtype, tokens, heads, dim), tensor(dtype, tokens, heads, dim // 2)
    angles, table = tensor("float32", tokens, 1, dim), tensor(dtype, tokens, 1, dim)
    nothing = tensor(dtype, tokens, heads, 0)
    tables = [
        spec
        for wave in ("cos", "sin")
        for spec in (
            op(f"aten.{wave}", (angles,), (angles,)),
            op("aten.mul.Tensor", (angles,), (angles,)),
            op("aten._to_copy", (angles,), (table,)),
        )
    ]
    apart = [op("aten.cat", (half, half), (x,))]
    scaled, total = op("aten.mul.Tensor", (x, table), (x,)), op("aten.add.Tensor", (x, x), (x,))
    negative = op("aten.neg", (half,), (half,))
    forward = [*(apart if latent else ()), *tables, scaled, negative, *apart, scaled, total]
    forward.append(op("aten.cat", (x, nothing), (x,)))
    backward = [scaled, negative, *apart, scaled, total]
    if latent:
        backward += [op("aten.slice_backward", (half,), (x,))] * 2 + [total]
    return forward, [*backward, op("aten.slice_backward", (nothing,), (x,)), total]


def activation(dtype: str, rows: int, width: int) -> Piece:
    """The activated gate times the rest, both halves of one product."""
    x, both = tensor(dtype, rows, width), tensor(dtype, rows, 2 * width)
    product = op("aten.mul.Tensor", (x, x), (x,))
    forward = (op("aten.silu", (x,), (x,)), op("aten.add.Tensor", (x,), (x,)), product)
    backward = (product, product, op("aten.silu_backward", (x, x), (x,)), op("aten.cat", (x, x), (both,)))
    return Piece("activation", forward, backward)


def weighed(dtype: str, rows: int, width: int) -> Piece:
    """Inner results of the experts times their tokens' weights."""
    x, weight = tensor(dtype, rows, width), tensor(dtype, rows, 1)
    scale = op("aten.mul.Tensor", (x, weight), (x,))
    gradient = (op("aten.mul.Tensor", (x, x), (x,)), op("aten.sum.dim_IntList", (x,), (weight,)))
    return Piece("expert weights", (scale,), (*gradient, scale))


def exchange(
    layout: Layout, shape: MoeFfn, tokens: TensorSpec, sent: TensorSpec, there: Ops, back: Ops
) -> tuple[Piece, Piece]:
    """Dispatch and combine: copies by expert, sent, put in the order of the local experts; and the way back.

    ``there``, ``back``: what goes between ranks. Each expert's rows are cut out and laid side by side again.
    """
    own = tensor(
        tokens.dtype, tokens.shape[0] * shape.top_k, tokens.shape[1]
    )  # ranks that share experts send theirs
    index = tensor("int64", own.shape[0])
    spread = op("aten.index_select", (tokens, index), (own,))
    places = TensorSpec("int64", own.shape, (1, 0))
    ordered = (op("aten.cat", (sent,), (sent,)),)
    sort: Ops = ordered if shape.experts // layout.expert > 1 else ()
    gathered = (
        op("aten.new_zeros", (own,), (tokens,)),
        op("aten.index_add", (tokens, index, own), (tokens,)),
    )
    summed = (
        op("aten.zero_", (tokens,), (tokens,)),
        op("aten.scatter_add_", (tokens, places, own), (tokens,)),
    )
    spread_back = (op("aten.gather", (tokens, places), (own,)),)
    return (
        Piece("dispatch", (spread, *there, *sort), (*ordered, *sort, *reversed(there), *gathered)),
        Piece("combine", (*ordered, *sort, *back, *summed), (*spread_back, *reversed(back), *sort)),
    )


def adam(share: int, elements: int, dtype: str) -> list[OpSpec]:
    """One optimizer's step on its ``share`` of ``elements``: norm, clipping, AdamW, 16-bit copies."""
    state, narrow, one = tensor("float32", share), tensor(dtype, share), tensor("float32", 1)
    whole = tensor("float32", elements)
    scale = op("aten._foreach_mul_.Scalar", (state,), ())
    return [
        op("aten.zero_", (whole,), (whole,)),
        op("aten.mul_.Tensor", (whole,), (whole,)),  # the mean over data ranks
        op("aten.linalg_vector_norm", (state,), (one,)),
        op("aten.mul.Tensor", (state,), (state,)),
        op("aten.copy_", (state, state), (state,)),
        scale,  # weight decay
        op("aten._foreach_lerp_.Scalar", (state, state), ()),
        scale,
        op("aten._foreach_addcmul_.Scalar", (state, state, state), ()),
        op("aten._foreach_sqrt", (state,), (state,)),
        op("aten._foreach_div_.ScalarList", (state,), ()),
        op("aten._foreach_add_.Scalar", (state,), ()),
        op("aten._foreach_addcdiv_.ScalarList", (state, state, state), ()),
        op("aten.copy_", (narrow, state), (narrow,)),
    ]
