"""How eager model code moves tokens to experts and back: gathers, scatters and weights as single operations.

transformers gathers the tokens in the order of their experts, weighs the results, gathers them back and sums over
each token's experts. TorchTitan weighs in FP32 and scatters into a sum; between ranks, tokens are put in the order
of the local experts on arrival, and back before they leave.
"""

from __future__ import annotations

from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.recipes.architecture import MoeFfn
from windtunnel.recipes.layout import EagerCode, Layout
from windtunnel.recipes.piece import Piece, op, tensor

Ops = tuple[OpSpec, ...]


def exchange_pieces(
    layout: Layout, shape: MoeFfn, tokens: TensorSpec, sent: TensorSpec, there: Ops, back: Ops
) -> tuple[Piece, Piece]:
    """Dispatch and combine. ``tokens`` (rows, width), ``sent`` (copies, width); ``there``, ``back``: between ranks."""
    wide = tensor("float32", *sent.shape)
    index = tensor("int64", sent.shape[0])
    spread = op("aten.index.Tensor", (tokens, index), (sent,))
    gathered = (
        op("aten.new_zeros", (sent,), (tokens,)),
        op("aten.index_put", (tokens, index, sent), (tokens,)),
    )
    sort = op("aten.index.Tensor", (sent, index), (sent,))
    if layout.eager is EagerCode.TRANSFORMERS:
        forward, backward = _summed(tokens, sent, wide if shape.weights_fp32 else sent, shape.top_k)
        return (
            Piece("dispatch", (spread, *there), (*back, *gathered)),
            Piece("combine", (*back, *forward), (*backward, *there)),
        )
    unsort = _scatter(sent)
    up, down = op("aten._to_copy", (sent,), (wide,)), op("aten._to_copy", (wide,), (sent,))
    weigh, unweigh = _weigh(wide, wide)
    places = TensorSpec("int64", sent.shape, (1, 0))  # one row's number, spread over its elements
    total = op("aten.scatter_add", (tokens, places, sent), (tokens,))
    apart = layout.expert > 1
    arrive, leave = ((sort,), (op("aten.index_put_", (sent, index, sent), (sent,)),)) if apart else ((), ())
    forward = (*leave, *back, op("aten.zeros_like", (tokens,), (tokens,)), up, *weigh, down, total)
    backward = (op("aten.gather", (tokens, places), (sent,)), up, *unweigh, down, *there, *arrive)
    return (
        Piece("dispatch", (spread, *there, *arrive), (*(unsort if apart else ()), *back, *gathered)),
        Piece("combine", forward, backward),
    )


def _summed(tokens: TensorSpec, sent: TensorSpec, weighed: TensorSpec, top_k: int) -> tuple[Ops, Ops]:
    """Weighed, gathered back and summed over each token's experts; in FP32 where the weights are."""
    weigh, unweigh = _weigh(sent, weighed)
    copies = tensor(weighed.dtype, tokens.shape[0], top_k, tokens.shape[1])
    total = tensor(weighed.dtype, *tokens.shape)
    index = tensor("int64", sent.shape[0])
    forward = (
        *weigh,
        op("aten.index.Tensor", (weighed, index), (weighed,)),
        op("aten.sum.dim_IntList", (copies,), (total,)),
    )
    backward = (op("aten.clone", (copies,), (copies,)), *_scatter(weighed), *unweigh)
    if weighed == sent:
        return forward, backward
    return (
        (*forward, op("aten._to_copy", (total,), (tokens,))),
        (op("aten._to_copy", (tokens,), (total,)), *backward, op("aten._to_copy", (weighed,), (sent,))),
    )


def _scatter(x: TensorSpec) -> Ops:
    """Gradients of a gather that only changes the order."""
    index = tensor("int64", x.shape[0])
    return (
        op("aten.new_zeros", (x,), (x,)),
        op("aten.index_put", (x, index, x), (x,), accumulate=True),
    )


def _weigh(x: TensorSpec, out: TensorSpec) -> tuple[Ops, Ops]:
    """Results times the router's weights, whose type ``out`` has; gradients of both."""
    weight = tensor(out.dtype, x.shape[0], 1)
    return (op("aten.mul.Tensor", (x, weight), (out,)),), (
        op("aten.mul.Tensor", (out, x), (out,)),
        op("aten.mul.Tensor", (out, weight), (out,)),
        op("aten.sum.dim_IntList", (out,), (weight,)),
    )
