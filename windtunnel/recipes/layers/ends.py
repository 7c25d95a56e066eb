"""The two ends of a model: token embedding in front, final norm, output product and loss behind."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.program import kernels
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.recipes.architecture import Architecture
from windtunnel.recipes.groups import TENSOR
from windtunnel.recipes.layers.norm import norm_piece
from windtunnel.recipes.layout import EagerCode, Layout, LossKernel, Precision
from windtunnel.recipes.linear import Products
from windtunnel.recipes.piece import Piece, collective, op, tensor
from windtunnel.recipes.tensor_parallel import (
    at_boundaries,
    cut,
    enter,
    gather,
    scatter,
    summed,
    with_summed_weights,
)
from windtunnel.specs.model import Norm

BothWays = tuple[list[OpSpec], list[OpSpec]]


def embedding(model: Architecture, layout: Layout) -> tuple[Piece, ...]:
    """Gather of rows, summed over tensor-parallel ranks that each hold part of the vocabulary."""
    dtype, tokens = layout.precision.activation, layout.tokens
    rows = -(-model.vocabulary // layout.tensor)
    table, ids = tensor(dtype, rows, model.hidden), tensor("int64", tokens)
    whole = tensor(dtype, tokens, model.hidden)
    forward = [op("aten.embedding", (table, ids), (whole,))]
    backward = [op("aten.embedding_dense_backward", (whole, ids), (table,))]
    if (
        layout.tensor > 1 and not layout.fused and layout.eager is EagerCode.MEGATRON
    ):  # others' words give nothing
        mask, none = tensor("bool", tokens), tensor(dtype, 1)
        forward.append(op("aten.index_put_", (whole, mask, none), (whole,)))
        backward.insert(0, op("aten.index_put", (whole, mask, none), (whole,)))
    if at_boundaries(layout):
        forward, backward = _masked(layout, whole, forward, backward)
    elif layout.tensor > 1 and layout.sequence_parallel:
        part = tensor(dtype, layout.sequence_tokens, model.hidden)
        forward.append(collective("_reduce_scatter_base_", TENSOR, whole, part))
        backward.insert(0, collective("_allgather_base_", TENSOR, part, whole))
    elif layout.tensor > 1:
        forward.append(collective("allreduce_", TENSOR, whole, whole))
    backward += Products(layout).into_buffer(rows, model.hidden)
    if not layout.trains_base:
        backward = []
    parameters = rows * model.hidden + model.learned_positions * model.hidden
    return (Piece("embedding", tuple(forward), tuple(backward), parameters=parameters),)


def _masked(layout: Layout, found: TensorSpec, forward: list[OpSpec], backward: list[OpSpec]) -> BothWays:
    """DTensor's: words of other ranks are looked up as the first one and zeroed; compiled code does that in passing."""
    mask = tensor(layout.precision.activation, found.shape[0], 1)
    zero = [] if layout.fused else [op("aten.mul.Tensor", (found, mask), (found,))]
    width = found.shape[1]
    if not layout.sequence_parallel:
        return [*forward, *zero, *summed(layout, *found.shape)], [*zero, *backward]
    out = (*cut(layout, width), *scatter(layout, width))
    return [*forward, *zero, *out], [*gather(layout, width), *zero, *backward]


def head(model: Architecture, layout: Layout, norm: Norm) -> tuple[Piece, ...]:
    """Final norm, logits and cross entropy; the output product stays in 16 bit."""
    plain = layout if not layout.precision.is_fp8 else replace(layout, precision=Precision.BF16)
    products = Products(plain)
    rows = -(-model.vocabulary // layout.tensor)
    logits = products.linear("head", layout.tokens, model.hidden, rows, split="column")
    if model.tied and layout.pipeline == 1:
        logits = replace(logits, parameters=0)
    own = layout.sequence_tokens
    last = norm_piece("final norm", products.dtype, own, model.hidden, norm, layout.fused_norm)
    return (
        with_summed_weights(last, layout, model.hidden) if layout.sequence_parallel else last,
        *enter(layout, "head", model.hidden),
        logits,
        _loss(products.dtype, layout, rows),
    )


def _loss(dtype: str, layout: Layout, classes: int) -> Piece:
    tokens = layout.tokens
    logits, targets = tensor(dtype, tokens, classes), tensor("int64", tokens)
    each = tensor("float32", tokens)
    eager = _in_pieces if layout.eager is EagerCode.MEGATRON else _pytorch
    kind = _BY_KERNEL[layout.loss] if layout.fused else eager
    if not layout.fused and at_boundaries(layout):
        return Piece("loss", *_loss_parallel(logits, each))
    forward, backward = kind(logits, targets, each)
    if layout.tensor > 1:  # maximum, sum and the target's logit over the split vocabulary
        forward += [collective("allreduce_", TENSOR, each, each)] * 3
    return Piece("loss", tuple(forward), tuple(backward))


def _fused(logits: TensorSpec, targets: TensorSpec, each: TensorSpec) -> BothWays:
    forward = [op(kernels.CROSS_ENTROPY, (logits, targets), (each, each))]
    return forward, [op(kernels.CROSS_ENTROPY_BACKWARD, (each, logits, targets, each), (logits,))]


def _pytorch(logits: TensorSpec, targets: TensorSpec, each: TensorSpec) -> BothWays:
    wide, one = tensor("float32", *logits.shape), tensor("float32", 1)
    forward = [
        op("aten._to_copy", (logits,), (wide,)),
        op("aten._log_softmax", (wide,), (wide,)),
        op("aten.nll_loss_forward", (wide, targets), (one, one)),
    ]
    backward = [
        op("aten.nll_loss_backward", (one, wide, targets, one), (wide,)),
        op("aten._log_softmax_backward_data", (wide, wide), (wide,)),
        op("aten._to_copy", (wide,), (logits,)),
    ]
    return forward, backward


def _loss_parallel(logits: TensorSpec, each: TensorSpec) -> tuple[tuple[OpSpec, ...], tuple[OpSpec, ...]]:
    """DTensor's over a split vocabulary (`torch/distributed/tensor/parallel/loss.py`), FP32, in pieces."""
    wide, places = tensor("float32", *logits.shape), tensor("int64", logits.shape[0])
    reduce = collective("allreduce_", TENSOR, each, each)
    less = op("aten.sub.Tensor", (wide, each), (wide,))
    exponential = op("aten.exp", (wide,), (wide,))
    forward = (
        op("aten._to_copy", (logits,), (wide,)),
        op("aten.amax", (wide,), (each,)),
        reduce,
        less,
        exponential,
        op("aten.sum.dim_IntList", (wide,), (each,)),
        reduce,
        op("aten.log", (each,), (each,)),
        less,
        op("aten.gather", (wide, places), (each,)),
        reduce,
    )
    backward = (
        op("aten.zeros_like", (wide,), (wide,)),
        op("aten.index_put_", (wide, places, places, each), (wide,)),
        exponential,
        op("aten.add.Tensor", (wide, wide), (wide,)),
        op("aten.mul.Tensor", (wide, each), (wide,)),
        op("aten._to_copy", (wide,), (logits,)),
    )
    return forward, backward


def _compiled(logits: TensorSpec, targets: TensorSpec, each: TensorSpec) -> BothWays:
    """Passes of `fused_cross_entropy.py`: maximum in FP32; exponentials and sums; the quotient; the gradient."""
    wide = tensor("float32", *logits.shape)
    forward = [
        op(kernels.FUSED, (logits,), (wide, each), ops=2),
        op(kernels.FUSED, (wide, targets), (wide, each), ops=4),
        op(kernels.FUSED, (wide, each), (wide,), ops=1),
    ]
    return forward, [op(kernels.FUSED, (wide, each), (logits,), ops=2)]


def _in_pieces(logits: TensorSpec, targets: TensorSpec, each: TensorSpec) -> BothWays:
    """`cross_entropy.py`: copy, maximum, difference, exponential, sum, quotient; product and copy backward."""
    wide = tensor("float32", *logits.shape)
    places = tensor("int64", logits.shape[0])
    forward = [
        op("aten._to_copy", (logits,), (wide,)),
        op("aten.amax", (wide,), (each,)),
        op("aten.sub_.Tensor", (wide, each), (wide,)),
        op("aten.index.Tensor", (wide, places), (each,)),
        op("aten.exp", (wide,), (wide,)),
        op("aten.sum.dim_IntList", (wide,), (each,)),
        op("aten.log", (each,), (each,)),
        op("aten.div_.Tensor", (wide, each), (wide,)),
    ]
    backward = [
        op("aten.mul_.Tensor", (wide, each), (wide,)),
        op("aten._to_copy", (wide,), (logits,)),
    ]
    return forward, backward


_BY_KERNEL = {LossKernel.FUSED: _fused, LossKernel.COMPILED: _compiled, LossKernel.IN_PIECES: _in_pieces}
