"""Feed-forward layers: dense, and mixtures of experts with their dispatch."""

from __future__ import annotations

from windtunnel.program import kernels
from windtunnel.program.marks import HOST_DELAY
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.recipes.architecture import DenseFfn, MoeFfn
from windtunnel.recipes.layers import megatron_local
from windtunnel.recipes.layers.expert_exchange import exchanges, received_rows
from windtunnel.recipes.layers.norm import activation_piece
from windtunnel.recipes.layout import EagerCode, GraphScope, Layout
from windtunnel.recipes.linear import BLOCK_SCALES, FP8_BACKWARD, FP8_FORWARD, Products
from windtunnel.recipes.piece import Keep, Piece, op, tensor
from windtunnel.recipes.tensor_parallel import enter, leave, with_summed_weights

EXPERT_CALL_S = 8e-6
"""Host time of one more product in a loop of library calls: set-up and launch, as in ``cost/host.py`` (convention)."""


def dense(shape: DenseFfn, hidden: int, layout: Layout) -> tuple[Piece, ...]:
    """Up (and gate), activation, down."""
    products = Products(layout)
    width = max(1, shape.width // layout.tensor)
    up = width * (2 if shape.gated else 1)
    tokens = layout.tokens
    adapted, apart = layout.adapts_all, _apart(shape, width, layout)
    return (
        *enter(layout, "ffn", hidden),
        products.linear(
            "up", tokens, hidden, up, split="column", bias=shape.bias, parts=apart, adapted=adapted
        ),
        _activation(products.dtype, tokens, width, shape.gated, layout),
        products.linear("down", tokens, width, hidden, split="row", bias=shape.bias, adapted=adapted),
        *leave(layout, "ffn", hidden),
    )


def _apart(shape: DenseFfn | MoeFfn, width: int, layout: Layout) -> tuple[int, ...]:
    """Gate and up are two products in eager model code, and stay two when it is compiled."""
    eager = not layout.fused and not _joins(layout)
    return (width, width) if shape.gated and (eager or layout.compiled) else ()


def _joins(layout: Layout) -> bool:
    """Whether eager code has gate and up as one product all the same."""
    return not layout.fused and layout.eager is EagerCode.MEGATRON


def _activation(dtype: str, rows: int, width: int, gated: bool, layout: Layout) -> Piece:
    if gated and _joins(layout):
        return megatron_local.activation(dtype, rows, width)
    return activation_piece(dtype, rows, width, gated, layout.fused)


def moe(shape: MoeFfn, hidden: int, layout: Layout) -> tuple[Piece, ...]:
    """Router, dispatch to the experts' ranks, grouped products, combine, and the shared expert."""
    products = Products(layout)
    dtype, rows = products.dtype, layout.sequence_tokens
    local = max(1, shape.experts // layout.expert)
    width = max(1, shape.width // layout.expert_tensor)
    received = received_rows(shape, layout)
    up = width * (2 if shape.gated else 1)
    inner = shape.latent or hidden
    dispatch, combine = exchanges(shape, inner, layout)
    pieces = [_router(layout, rows, hidden, shape)]
    if shape.latent:
        pieces.append(products.linear("latent down", rows, hidden, shape.latent))
    pieces += [
        dispatch,
        _grouped("experts up", layout, received, inner, up, local, shape.gated and not layout.fused),
        _activation(dtype, received, width, shape.gated, layout),
        *((megatron_local.weighed(dtype, received, width),) if _joins(layout) else ()),
        _grouped("experts down", layout, received, width, inner, local),
        combine,
    ]
    if shape.latent:
        pieces.append(products.linear("latent up", rows, shape.latent, hidden))
    if shape.shared_width:
        pieces += dense(DenseFfn(width=shape.shared_width, gated=shape.gated), hidden, layout)
    if shape.shared_gate and not layout.fused:
        pieces += _shared_gate(products, rows, hidden)
    return tuple(pieces)


def _shared_gate(products: Products, rows: int, hidden: int) -> tuple[Piece, Piece]:
    """A product to one number a token, and the shared part times its sigmoid."""
    x, gate = tensor(products.dtype, rows, hidden), tensor(products.dtype, rows, 1)
    scale = op("aten.mul.Tensor", (x, gate), (x,))
    forward = (op("aten.sigmoid", (gate,), (gate,)), scale)
    learn = (op("aten.mul.Tensor", (x, x), (x,)), op("aten.sum.dim_IntList", (x,), (gate,)))
    total = op("aten.add.Tensor", (x, x), (x,))  # its input's gradient joins the others
    back = op("aten.sigmoid_backward", (gate, gate), (gate,))
    return products.linear("shared gate", rows, hidden, 1), Piece(
        "shared gate", forward, (scale, *learn, back, total)
    )


def _router(layout: Layout, rows: int, hidden: int, shape: MoeFfn) -> Piece:
    dtype, trains = layout.precision.activation, layout.trains_base
    whole = shape.router_fp32 and not layout.fused and layout.eager is EagerCode.TRANSFORMERS
    kind = "float32" if whole else dtype
    x, w = tensor(kind, rows, hidden), tensor(kind, hidden, shape.experts)
    scores, chosen = tensor("float32", rows, shape.experts), tensor("float32", rows, shape.top_k)
    logits, plain = tensor(kind, rows, shape.experts), tensor(dtype, rows, hidden)
    forward: tuple[OpSpec, ...] = (
        op("aten.mm", (x, w), (logits,)),
        op("aten._softmax", (scores,), (scores,)),
        op("aten.topk", (scores,), (chosen, tensor("int64", rows, shape.top_k))),
        op(kernels.FUSED, (scores,), (scores,), ops=4),
    )
    backward: tuple[OpSpec, ...] = (
        op("aten._softmax_backward_data", (scores, scores), (scores,)),
        op("aten.mm", (logits, tensor(kind, shape.experts, hidden)), (x,)),
    )
    if whole:
        forward = (op("aten._to_copy", (plain,), (x,)), *forward)
        backward += (op("aten._to_copy", (x,), (plain,)),)
    if not layout.fused:  # the router's, the experts' and the shared expert's gradients of one input
        total = op("aten.add.Tensor", (plain, plain), (plain,))
        backward += (total, total) if shape.shared_width else (total,)
        forward += (total,) if shape.shared_width else ()
    weight = op(
        "aten.mm", (tensor(kind, shape.experts, rows), x), (tensor("float32", shape.experts, hidden),)
    )
    learns = (weight,) if trains else ()
    router = Piece("router", forward, backward, learns, Keep.UNCOUNTED, parameters=hidden * shape.experts)
    return with_summed_weights(router, layout, shape.experts, hidden)


def _grouped(
    name: str, layout: Layout, rows: int, wide_in: int, wide_out: int, experts: int, gated: bool = False
) -> Piece:
    """One product per local expert. ``gated``: gate and up, which eager code computes apart or joins backward."""
    products = Products(layout)
    dtype, scaled = products.dtype, layout.precision.is_fp8

    def product(k: int, n: int, eight: str) -> OpSpec:
        a = tensor(eight if scaled else dtype, rows, k)
        b = tensor(FP8_FORWARD if scaled else dtype, experts, k, n)
        out = tensor(dtype, rows, n)
        if not scaled:
            return op(kernels.GROUPED_GEMM, (a, b), (out,))
        block = BLOCK_SCALES.get(layout.precision, k)  # one scale for a whole tensor otherwise
        scales = (
            tensor("float32", rows, max(1, k // block)),
            tensor("float32", experts, max(1, k // block), n),
        )
        return op(kernels.SCALED_GROUPED_GEMM, (a, b, *scales), (out,), block=block)

    gated = gated and not _joins(layout)
    apart = gated and layout.eager is not EagerCode.TRANSFORMERS
    ways = 2 if apart else 1
    part = wide_out // ways
    x: TensorSpec = tensor(FP8_FORWARD if scaled else dtype, rows, wide_in)
    dy = tensor(FP8_BACKWARD if scaled else dtype, rows, part)
    weight = (
        op(kernels.GROUPED_GEMM, (x, dy), (tensor(products.gradient, experts, wide_in, part),)),
        *products.into_buffer(experts, wide_in, part),
    )
    summed, half = tensor(dtype, rows, wide_in), tensor(dtype, rows, wide_out // 2)
    calls = _calls(layout, experts, 2 if scaled else 1)
    add = op("aten.add.Tensor", (summed, summed), (summed,))
    join = op("aten.cat", (half, half), (tensor(dtype, rows, wide_out),))
    return Piece(
        name,
        (*calls, *products.cast(rows, wide_in), *(product(wide_in, part, FP8_FORWARD),) * ways),
        (
            *calls,
            *((join,) if gated and not apart else ()),
            *products.cast(rows, wide_out),
            *(product(part, wide_in, FP8_BACKWARD),) * ways,
            *(add,) * (ways - 1),
        ),
        (*_calls(layout, experts, 1), *weight * ways) if layout.trains_base else (),
        expert_parameters=experts * wide_in * wide_out,
    )


def _calls(layout: Layout, experts: int, kinds: int) -> tuple[OpSpec, ...]:
    """Host time of the calls beyond the first where experts are called one by one; ``kinds`` of them each."""
    captured = layout.graphs & {GraphScope.STEP, GraphScope.EXPERTS}
    if not layout.expert_calls or experts == 1 or captured:
        return ()
    return (OpSpec(HOST_DELAY, attributes=(("seconds", kinds * (experts - 1) * EXPERT_CALL_S),)),)
