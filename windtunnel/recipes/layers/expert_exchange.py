"""How tokens reach the ranks of their experts and come back, by dispatcher.

    DeepEP, HybridEP   one copy a rank or node is sent, then permuted by expert; the way back sums
    all-to-all         tokens are permuted by expert first, every copy is sent, and sorted by local expert on arrival
                       (Megatron-Core's ``MoEAlltoAllTokenDispatcher``)

Where experts are split over tensor-parallel ranks, these gather what each received, and scatter the sums.
Sizes differ from step to step unless tokens are dropped: the host waits for the counts before it can issue what
comes after the dispatch, and starts again with an empty queue.
"""

from __future__ import annotations

from windtunnel.program import kernels
from windtunnel.program.marks import ITEM
from windtunnel.program.op import Attribute, OpSpec, TensorSpec
from windtunnel.recipes.architecture import MoeFfn
from windtunnel.recipes.groups import EXPERT, TENSOR
from windtunnel.recipes.layers import megatron_local
from windtunnel.recipes.layers.eager_experts import exchange_pieces
from windtunnel.recipes.layout import Dispatcher, EagerCode, GraphScope, Layout, Precision
from windtunnel.recipes.linear import FP8_FORWARD
from windtunnel.recipes.piece import Piece, collective, op, tensor

Ops = tuple[OpSpec, ...]


def received_rows(shape: MoeFfn, layout: Layout) -> int:
    """Rows of the local experts' products on the busiest rank."""
    return max(1, int(layout.sequence_tokens * shape.top_k * layout.imbalance * layout.expert_tensor))


def exchanges(shape: MoeFfn, width: int, layout: Layout) -> tuple[Piece, Piece]:
    """Dispatch and combine of tokens of ``width`` elements; backward each is the other way round."""
    dtype, rows = layout.precision.activation, layout.sequence_tokens
    tokens, permuted = tensor(dtype, rows, width), tensor(dtype, received_rows(shape, layout), width)
    if layout.dispatcher is Dispatcher.ALL_TO_ALL and layout.fused:
        sent, returned = _all_to_all(shape, layout, tokens)
    else:
        sent, returned = (
            _transfer("dispatch", shape, layout, width),
            _transfer("combine", shape, layout, width),
        )
    gather, scatter = _between_tensor_ranks(layout, permuted)
    if not layout.fused and layout.eager is EagerCode.MEGATRON:
        sent, returned = _all_to_all(shape, layout, tokens)
        between = (*sent, *gather), (*scatter, *returned)
        return megatron_local.exchange(layout, shape, tokens, permuted, *between)
    if not layout.fused:
        return exchange_pieces(layout, shape, tokens, permuted, (*sent, *gather), (*scatter, *returned))
    chosen, weights = tensor("int64", rows, shape.top_k), tensor("float32", rows, shape.top_k)
    there: Ops = (*sent, *gather, op(kernels.MOE_PERMUTE, (tokens, chosen), (permuted,)))
    back: Ops = (op(kernels.MOE_UNPERMUTE, (permuted, chosen, weights), (tokens,)), *scatter, *returned)
    if layout.dispatcher is Dispatcher.ALL_TO_ALL:
        copies = tensor(dtype, rows * shape.top_k, width)
        sort = _sorted(layout, shape, permuted)
        there = (op(kernels.MOE_PERMUTE, (tokens, chosen), (copies,)), *sent, *gather, *sort)
        back = (*sort, *scatter, *returned, op(kernels.MOE_UNPERMUTE, (copies, chosen, weights), (tokens,)))
    return Piece("dispatch", (*_counts(shape, layout), *there), back), Piece("combine", back, there)


def _transfer(name: str, shape: MoeFfn, layout: Layout, width: int) -> Ops:
    if layout.expert == 1:
        return ()
    eight_bit = name == "dispatch" and layout.precision is Precision.FP8_BLOCK
    dtype, rows = FP8_FORWARD if eight_bit else layout.precision.activation, layout.sequence_tokens
    sent = tensor(dtype, rows, width)
    more: dict[str, Attribute] = {
        "tokens": rows,
        "top_k": shape.top_k,
        "token_bytes": width * (1 if eight_bit else 2),
        "imbalance": layout.imbalance,
        "tma": layout.dispatcher is Dispatcher.HYBRIDEP,
        **({"as_of": layout.deepep} if layout.deepep else {}),
    }
    return (collective(name, EXPERT, sent, sent, -1, **more),)


def _all_to_all(shape: MoeFfn, layout: Layout, tokens: TensorSpec) -> tuple[Ops, Ops]:
    """Copies and their weights there, copies back."""
    if layout.expert == 1:
        return (), ()
    copies = tensor(tokens.dtype, int(tokens.shape[0] * shape.top_k * layout.imbalance), tokens.shape[1])
    weights = tensor("float32", copies.shape[0])
    send = collective("alltoall_base_", EXPERT, copies, copies)
    return (send, collective("alltoall_base_", EXPERT, weights, weights)), (send,)


def _between_tensor_ranks(layout: Layout, permuted: TensorSpec) -> tuple[Ops, Ops]:
    """What ranks that share experts gather before the products, and scatter behind them."""
    ways = layout.expert_tensor
    if ways == 1 or ways != layout.tensor:
        return (), ()
    part = tensor(permuted.dtype, max(1, permuted.shape[0] // ways), permuted.shape[1])
    gather = collective("_allgather_base_", TENSOR, part, permuted)
    return (gather,), (collective("_reduce_scatter_base_", TENSOR, permuted, part),)


def _sorted(layout: Layout, shape: MoeFfn, permuted: TensorSpec) -> Ops:
    """Chunks of the senders put in the order of the local experts, or back."""
    if layout.expert == 1 or shape.experts // layout.expert <= 1:
        return ()
    return (op(kernels.FUSED, (permuted,), (permuted,), ops=1),)


def _counts(shape: MoeFfn, layout: Layout) -> Ops:
    if not layout.counts_on_host or GraphScope.STEP in layout.graphs:
        return ()
    return (OpSpec(ITEM, (tensor("int64", shape.experts),), ()),)
