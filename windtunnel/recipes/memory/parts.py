"""Operations of model code by what they allocate: norms, products, rotary embeddings, activations, attention.

Each function is written as the code that it stands for: one call for every operation that makes a new tensor, with
what autograd saves for it. Views are no operations here. "Eager" code is transformers' or TorchTitan's
(``Layout.eager``); ``Layout.fused`` stands for Transformer Engine's kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel.recipes.layout import AttentionKernel, EagerCode, Layout, Recompute, Sharding
from windtunnel.recipes.memory.graph import Graph, Value
from windtunnel.recipes.memory.tape import free
from windtunnel.recipes.tensor_parallel import at_boundaries
from windtunnel.specs.model import Norm

WIDE = 4
"""Bytes of an FP32 number."""


def width_of(layout: Layout) -> int:
    """Bytes of an activation or a gathered parameter."""
    return WIDE if layout.precision.activation == "float32" else 2


def cast(graph: Graph, x: Value, width: int) -> Value:
    """A copy in another type."""
    return graph.call("aten._to_copy", x.elements, width, [x])


def add(graph: Graph, x: Value, y: Value) -> Value:
    """The sum; both get its gradient as it is."""
    return graph.call("aten.add", x.elements, max(x.width, y.width), [x, y], gradients=(None, None))


def multiply(graph: Graph, x: Value, y: Value, width: int = 0) -> Value:
    """Element by element, in ``width`` bytes if it is given."""
    own = width or x.width
    # what was widened for the product is narrowed again on the way back
    back = [x.elements * own] if own != x.width else []
    # the second factor's gradient comes first
    return graph.call("aten.mul", x.elements, own, [y, x], saves=(y, x), before=back)


def scale(graph: Graph, x: Value, table: Value) -> Value:
    """Times a constant."""
    return graph.call("aten.mul", x.elements, x.width, [x], saves=(table,))


def unary(graph: Graph, by: str, x: Value, *, saves_result: bool = False, saves: bool = True) -> Value:
    """A function of each number that needs its argument or its result to be differentiated."""
    kept = (x,) if saves and not saves_result else ()
    return graph.call(by, x.elements, x.width, [x], saves=kept, saves_result=saves_result)


def linear(
    graph: Graph,
    x: Value,
    wide_in: int,
    wide_out: int,
    *,
    bias: bool = False,
    counted: bool = True,
    needed: bool = True,
) -> Value:
    """A product with weights; its input is saved. ``counted``: among those of which every second is kept.

    ``needed``: some gradient needs its result.
    """
    rows = x.elements // wide_in
    return graph.call(
        "aten.mm", rows * wide_out, x.width, [x], saves=(x,), weights=_weights(wide_in, wide_out, x.width, bias),
        keeps=counted and graph.is_kept_product() and needed,
    )  # fmt: skip


def products_apart(layout: Layout) -> bool:
    """Whether queries, keys and values, gate and up are products by themselves: in transformers, and in TorchTitan
    of 2024 and before, compiled or not."""
    if layout.fused:
        return not by_transformer_engine(layout)
    return not by_megatron(layout) and layout.eager is not EagerCode.TORCHTITAN


def by_megatron(layout: Layout) -> bool:
    """Whether layers are Megatron-core's own, of PyTorch's operations (its "local" specification)."""
    return not layout.fused and layout.sharding is not Sharding.FSDP


def by_transformer_engine(layout: Layout) -> bool:
    """Whether fused layers are Transformer Engine's and not compiled ones: those keep FP8 products' inputs in 16 bits.

    Recomputation of single operations is TorchTitan's.
    """
    if not layout.fused or layout.sharding is not Sharding.FSDP:
        return layout.fused
    each = layout.recompute in (Recompute.SELECTIVE_OPS, Recompute.SELECTIVE_PRODUCTS)
    return layout.precision.is_fp8 and not each


def sized(x: Value, elements: int) -> Value:
    """Part of a tensor: a view."""
    return Value(x.buffer, elements, x.width, x.node)


def gathered(graph: Graph, x: Value, layout: Layout) -> Value:
    """The rows of all tensor-parallel ranks, in eager code: once for all products of the same input."""
    if layout.tensor == 1 or not layout.sequence_parallel:
        return x
    whole = x.elements * layout.tensor
    copied = (
        (whole * x.width,) if at_boundaries(layout) else ()
    )  # into place, and rank by rank on the way back
    there = copied if layout.micro_batch > 1 else ()
    return graph.call("c10d._allgather_base_", whole, x.width, [x], scratch=there, before=copied)


def entered(graph: Graph, x: Value, layout: Layout) -> Value:
    """A module's input as DTensor gathers it, for all products; what was gathered lives until the module ends."""
    if not at_boundaries(layout) or by_transformer_engine(layout):
        return x
    return gathered(graph, x, layout)


def column(
    graph: Graph,
    x: Value,
    wide_in: int,
    wide_out: int,
    layout: Layout,
    *,
    bias: bool = False,
) -> Value:
    """A column-parallel product. With sequence parallelism its input is gathered forward, and again backward."""
    if at_boundaries(layout) and not by_transformer_engine(layout):
        return linear(graph, x, wide_in, wide_out, bias=bias)
    if not (by_transformer_engine(layout) or by_megatron(layout)):
        return linear(graph, gathered(graph, x, layout), wide_in, wide_out, bias=bias)
    shared = layout.tensor > 1 and layout.sequence_parallel
    rows = x.elements // wide_in * (layout.tensor if shared else 1)
    whole = rows * wide_in * x.width
    saved = eight_bits(graph, x, layout)
    there = (rows * wide_in * saved.width,) if shared else ()
    if by_megatron(layout):  # into a buffer that all layers share
        for nbytes in there:
            graph.tape.share("c10d._allgather_base_", nbytes)
        there = ()
    return graph.call(
        "aten.mm", rows * wide_out, x.width, [x], saves=(saved,), scratch=there,
        before=(*there, whole) if shared else (), weights=_weights(wide_in, wide_out, x.width, bias),
        weighs_last=by_megatron(layout),
    )  # fmt: skip


def row(
    graph: Graph,
    x: Value,
    wide_in: int,
    wide_out: int,
    layout: Layout,
    *,
    bias: bool = False,
    needed: bool = True,
) -> Value:
    """A row-parallel product: its sums are shared out over the sequence.

    ``needed``: some gradient needs its result.
    """
    rows = x.elements // wide_in
    shared = layout.tensor > 1 and layout.sequence_parallel
    whole = (rows * wide_out * x.width,) if shared else ()
    saved = eight_bits(graph, x, layout) if by_transformer_engine(layout) else x
    if shared and at_boundaries(layout) and not by_transformer_engine(layout):
        sums = linear(graph, x, wide_in, wide_out, bias=bias, needed=needed)
        return summed_out(graph, sums, layout, needed=needed)
    return graph.call(
        "aten.mm", rows * wide_out // (layout.tensor if shared else 1), x.width, [x], saves=(saved,),
        scratch=whole, before=whole, weights=_weights(wide_in, wide_out, x.width, bias),
        keeps=graph.is_kept_product() and needed, weighs_last=by_megatron(layout),
    )  # fmt: skip


def summed_out(graph: Graph, sums: Value, layout: Layout, *, needed: bool = True) -> Value:
    """DTensor's: sums copied rank by rank and scattered; their gradient is gathered, and copied into place."""
    if not layout.sequence_parallel:
        return graph.call("c10d.all_reduce", sums.elements, sums.width, [sums], gradients=(None,))
    gathers = (sums.nbytes,) if layout.micro_batch > 1 else ()
    return graph.call(
        "c10d.reduce_scatter_tensor", sums.elements // layout.tensor, sums.width, [sums],
        scratch=(sums.nbytes,), before=gathers, keeps=needed,
    )  # fmt: skip


def expert_linear(graph: Graph, x: Value, wide_in: int, wide_out: int, experts: int, layout: Layout) -> Value:
    """One product for each local expert."""
    rows = x.elements // wide_in
    saved = eight_bits(graph, x, layout) if by_transformer_engine(layout) else x
    each = (
        wide_in * wide_out * x.width
    )  # Transformer Engine and Megatron-core have a parameter for each expert
    apart = layout.sharding is not Sharding.FSDP
    return graph.call(
        "aten._grouped_mm", rows * wide_out, x.width, [x], saves=(saved,), expert=True,
        weights=(each,) * experts if apart else (each * experts,),
    )  # fmt: skip


def eight_bits(graph: Graph, x: Value, layout: Layout) -> Value:
    """The copy that an 8-bit product takes, and keeps instead of its input."""
    if not layout.precision.is_fp8:
        return x
    return Value(graph.constant(x.elements, "windtunnel.fused").buffer, x.elements, 1)


def _weights(wide_in: int, wide_out: int, width: int, bias: bool) -> tuple[int, ...]:
    return (wide_in * wide_out * width, *((wide_out * width,) if bias else ()))


def laid_out(graph: Graph, x: Value, layout: Layout) -> Value:
    """Flex attention's result has heads outside the length: TorchTitan's output product takes a copy of it."""
    if layout.fused or layout.eager is not EagerCode.TORCHTITAN:
        return x
    return graph.call("aten.clone", x.elements, x.width, [x], gradients=(None,))


def rms_norm(graph: Graph, x: Value, columns: int, layout: Layout, norm: Norm = Norm.RMS) -> Value:
    """RMSNorm (or LayerNorm) with weights over ``columns`` numbers."""
    rows = x.elements // columns
    if layout.fused_norm or norm is Norm.LAYER:
        return _norm_kernel(graph, x, rows, columns)
    wide = x.elements * WIDE
    up = cast(graph, x, WIDE)
    square = graph.call(
        "aten.pow", up.elements, WIDE, [up], saves=(up,), gradients=(wide,), before=(wide, wide)
    )
    mean = graph.call("aten.mean", rows, WIDE, [square], gradients=(wide,))
    del square
    root = graph.call("aten.rsqrt", rows, WIDE, [mean], saves_result=True)
    scaled = graph.call(
        "aten.mul",
        up.elements,
        WIDE,
        [up, root],
        saves=(up, root),
        before=(wide,),
        gradients=(wide, rows * WIDE),
    )
    del up
    if norm is Norm.CENTRED:  # 1 + weight, in FP32, before it is cast back
        weighed = graph.call(
            "aten.mul", scaled.elements, WIDE, [scaled], saves=(scaled,), after=(wide,),
            weights=(columns * x.width,),
        )  # fmt: skip
        del scaled
        return cast(graph, weighed, x.width)
    narrow = cast(graph, scaled, x.width)
    return graph.call(
        "aten.mul",
        x.elements,
        x.width,
        [narrow],
        saves=(narrow,),
        after=(x.nbytes,),
        weights=(columns * x.width,),
    )


def _norm_kernel(graph: Graph, x: Value, rows: int, columns: int) -> Value:
    statistics = graph.constant(rows * WIDE, "windtunnel.rms_norm")
    return graph.call(
        "windtunnel.rms_norm", x.elements, x.width, [x], saves=(x, statistics), weights=(columns * x.width,)
    )


def rotary(graph: Graph, xs: Sequence[Value], tables: Sequence[Value], layout: Layout) -> list[Value]:
    """Rotary embedding of queries and keys."""
    if layout.fused:
        return list(xs)  # one kernel, in place
    if layout.eager.turns_halves:
        return [_rotary_by_halves(graph, x, tables) for x in xs]
    if by_megatron(layout):  # joined with the part that is not turned, of which there is none
        turned = [_rotary_by_halves(graph, x, tables) for x in xs]
        return [graph.call("aten.cat", x.elements, x.width, [x], gradients=(None,)) for x in turned]
    wide = [cast(graph, x, WIDE) for x in xs]
    turned = [  # gradients come as pairs of real numbers, and are laid out as complex ones
        graph.view(graph.call("aten.mul", x.elements, WIDE, [x], saves=(tables[0],)), "aten.clone")
        for x in wide
    ]
    back = [cast(graph, x, y.width) for x, y in zip(turned, xs, strict=True)]
    free(wide)
    free(turned)
    return back


def _rotary_by_halves(graph: Graph, x: Value, tables: Sequence[Value]) -> Value:
    plain = scale(graph, x, tables[0])
    # slices give back zeros with the slice's gradient inside
    back, half = x.nbytes, x.nbytes // 2
    minus = graph.call("aten.neg", x.elements // 2, x.width, [x], gradients=(back,), before=(half,))
    joined = graph.call("aten.cat", x.elements, x.width, [minus, x], gradients=(None, back))
    del minus
    turned = scale(graph, joined, tables[1])
    del joined
    return add(graph, plain, turned)


def _over_context(graph: Graph, x: Value, layout: Layout) -> Value:
    """Keys or values of all context-parallel ranks, gathered and laid out anew; gradients the other way round."""
    whole = x.elements * layout.context
    return graph.call(
        "c10d._allgather_base_", whole, x.width, [x], scratch=(whole * x.width,), before=(whole * x.width,)
    )


def attention(
    graph: Graph,
    queries: Value,
    keys: Value,
    values: Value,
    heads: int,
    width: int,
    layout: Layout,
) -> Value:
    """The core: results of ``width`` numbers a token. Queries, keys and values may be parts of one tensor."""
    if layout.gathers_keys:
        values = sized(values, min(values.elements, layout.tokens * width))
        keys, values = (_over_context(graph, x, layout) for x in (keys, values))
    rows = layout.tokens
    again = layout.recompute is Recompute.SELECTIVE
    inputs = list(dict.fromkeys((queries, keys, values)))
    if layout.attention is AttentionKernel.UNFUSED:
        # scores and softmax in 16 bits, the dropout's mask in bytes
        scores = heads * rows * layout.sequence // layout.context
        if again:
            return graph.call("attention", rows * width, queries.width, inputs, saves=inputs)
        held = graph.constant(5 * scores, "aten._softmax")
        return graph.call("aten.bmm", rows * width, queries.width, inputs, saves=(*inputs, held))
    sums = graph.constant(heads * rows * WIDE, "windtunnel.flash_attention")
    if again:  # the result is what the output product keeps
        return graph.call(
            "windtunnel.flash_attention", rows * width, queries.width, inputs, saves=(*inputs, sums)
        )
    return graph.call(
        "windtunnel.flash_attention", rows * width, queries.width, inputs, saves=(*inputs, sums),
        saves_result=True, keeps=layout.recompute is Recompute.SELECTIVE_OPS,
    )  # fmt: skip
