"""One forward step of a serving engine, as a program: prefill, decode, or both in one batch.

Attention is tensor parallel over ``tensor`` ranks, or data parallel (each rank its own sequences) with
experts spread over all ranks and tokens exchanged by dispatch and combine. Weights are in ``precision``,
activations and cache as said. What a scheduler does between steps is not here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.network.expert import distinct, within_groups
from windtunnel.program import kernels
from windtunnel.program.marks import GRAPH_END, GRAPH_LAUNCH
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import Phase, ProcessGroup, Program, StepKind
from windtunnel.recipes.architecture import (
    Architecture,
    DenseFfn,
    Ffn,
    GatedDelta,
    GroupedQuery,
    Latent,
    LayerShape,
    Mixer,
    MoeFfn,
)
from windtunnel.recipes.builder import ProgramBuilder
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layers.attention import split_heads
from windtunnel.recipes.layers.cached import Batch, delta_core, latent_core, softmax_core
from windtunnel.recipes.layout import Layout, Precision
from windtunnel.recipes.linear import FP4, FP8_FORWARD, Products
from windtunnel.recipes.piece import collective, op, tensor
from windtunnel.specs.model import ModelSpec, Norm

EULER = 0.5772156649015329
_WORLD, _TENSOR, _EXPERT = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingLayout:
    """How one replica is spread over cards.

    Attributes:
        tensor: ranks that share the heads. data: attention replicas with their own sequences.
        expert: ranks that share the experts, of tensor x data; 1: experts split by width over ``tensor``.
        cache: dtype of keys and values. graphs: the step is one captured graph.
        imbalance: load of the busiest expert rank over the mean, by what experts are popular.
        redundant: expert slots beyond one for each expert. drawn: tokens choose by chance, so that the busiest
            rank of a step carries more than its mean; otherwise routing is forced to be even.
        deepep: date of the exchange library's release (``ExpertTraffic.as_of``); empty: today's.
        exchange_sms: multiprocessors that exchanges of prompts are given; 0: the library's default.
        wide_inputs: products in front of attention stay in 16 bit, whatever the precision, as some checkpoints have
            them.
        narrow_experts: experts have weights of four bits (MXFP4), whatever the precision; ``eight_bit_rows``: which
            meet rows cast to eight (MXFP8), else to 16.
        fused_sums: products send their results while they compute the rest (TensorRT-LLM's
            ``gemm_allreduce_plugin``), so that the longer of the two counts.
    """

    tensor: int = 1
    data: int = 1
    expert: int = 1
    precision: Precision = Precision.BF16
    cache: str = "bfloat16"
    graphs: bool = True
    imbalance: float = 1.0
    redundant: int = 0
    drawn: bool = True
    deepep: str = ""
    exchange_sms: int = 0
    wide_inputs: bool = False
    narrow_experts: bool = False
    eight_bit_rows: bool = False
    fused_sums: bool = False

    def __post_init__(self) -> None:
        if min(self.tensor, self.data, self.expert) < 1 or self.cards % self.expert:
            raise WindtunnelError(
                "E207",
                f"expert parallel {self.expert} does not divide {self.cards} ranks of tensor x data",
                hint="experts are shared by all ranks of a replica or by an even part of them",
                values={"tensor": self.tensor, "data": self.data, "expert": self.expert},
            )

    @property
    def cards(self) -> int:
        """Cards of one replica."""
        return self.tensor * self.data


def forward_step(model: ModelSpec | Architecture, layout: ServingLayout, batches: Sequence[Batch]) -> Program:
    """The step of one rank; ``batches`` are the sequences of its attention replica.

    Raises E208 for a step without tokens, E209 for a mixer that cannot be built.
    """
    tokens = sum(batch.tokens for batch in batches)
    if tokens < 1:
        raise WindtunnelError(
            "E208",
            "a serving step without tokens",
            hint="give at least one sequence with at least one new token",
        )
    built = architecture_of(model) if isinstance(model, ModelSpec) else model
    step = _Step(built, layout, tuple(batches), tokens)
    builder = ProgramBuilder(_groups(layout), rank=0, world_size=layout.cards, name="serving step")
    ops = step.operations()
    if layout.graphs:
        launched = sum(1 for _ in ops)
        builder.add((OpSpec(GRAPH_LAUNCH, attributes=(("kernels", launched),)),), Phase.FORWARD)
    builder.add(ops, Phase.FORWARD, "model")
    if layout.graphs:
        builder.add((OpSpec(GRAPH_END),), Phase.FORWARD)
    kind = StepKind.DECODE if step.decodes else StepKind.PREFILL
    return builder.finish(kind, tokens=tokens, samples=sum(batch.sequences for batch in batches))


def _groups(layout: ServingLayout) -> list[ProcessGroup]:
    return [
        ProcessGroup(tuple(range(layout.cards)), "nccl", "world"),
        ProcessGroup(tuple(range(layout.tensor)), "nccl", "tensor"),
        ProcessGroup(tuple(range(layout.expert)), "nccl", "expert"),
    ]


@dataclass(frozen=True, slots=True)
class _Step:
    model: Architecture
    layout: ServingLayout
    batches: tuple[Batch, ...]
    tokens: int

    def operations(self) -> list[OpSpec]:
        """All operations of the step, in order."""
        model, ways = self.model, self.layout.tensor
        dtype = self.layout.precision.activation
        rows = -(-model.vocabulary // ways)
        table, ids = tensor(dtype, rows, model.hidden), tensor("int64", self.tokens)
        ops = [op("aten.embedding", (table, ids), (self._hidden(),))]
        for shape in model.layers:
            if shape.mixer is not None:
                out = dtype if self.layout.wide_inputs else self._written
                ops += [*self._norm(shape, out), *self._mixer(shape.mixer)]
            if shape.ffn is not None:
                # a router reads 16 bit: in front of experts the cast is a kernel of its own
                out = dtype if isinstance(shape.ffn, MoeFfn) else self._written
                ops += [*self._norm(shape, out), *self._ffn(shape.ffn)]
        sequences = sum(batch.sequences for batch in self.batches)
        last, logits = tensor(dtype, sequences, model.hidden), tensor(dtype, sequences, rows)
        ops.append(op(kernels.RMS_NORM, (last, tensor(dtype, model.hidden)), (last,)))
        ops.append(op("aten.mm", (last, tensor(dtype, model.hidden, rows)), (logits,)))
        if ways > 1:
            whole = tensor(dtype, sequences, rows * ways)
            ops.append(collective("_allgather_base_", _TENSOR, logits, whole))
        scores = tensor("float32", sequences, rows * ways)
        ops.append(op("aten._softmax", (scores,), (scores,)))
        ops.append(op("aten.argmax", (scores,), (tensor("int64", sequences),)))
        return ops

    def _hidden(self) -> TensorSpec:
        return tensor(self.layout.precision.activation, self.tokens, self.model.hidden)

    def _products(self, wide: bool = False) -> Products:
        precision = self.layout.precision
        if wide:
            precision = Precision.FP16 if precision is Precision.FP16 else Precision.BF16
        return Products(Layout(cards=1, global_batch=1, sequence=self.tokens, precision=precision))

    def _expert_products(self) -> Products:
        precision = Precision.MXFP8 if self.layout.eight_bit_rows else self.layout.precision
        return Products(Layout(cards=1, global_batch=1, sequence=self.tokens, precision=precision))

    def _linear(
        self, rows: int, wide_in: int, wide_out: int, written: bool = False, wide: bool = False
    ) -> list[OpSpec]:
        """A product; ``written``: by a norm or an activation, which write the product's own format if they know
        its scale. ``wide``: in 16 bit.
        """
        products = self._products(wide)
        bare = wide or (written and self._static)
        casts = () if bare else products.cast(rows, wide_in, transposed=False)
        return [*casts, *products.product(rows, wide_out, wide_in)]

    @property
    def _static(self) -> bool:
        """Whether scales come with the weights (one a tensor): engines then cast in the kernel before."""
        return self.layout.precision in (Precision.FP8, Precision.NVFP4)

    @property
    def _written(self) -> str:
        """What norms and activations write in front of a product."""
        if not self._static:
            return self.layout.precision.activation
        return FP4 if self.layout.precision is Precision.NVFP4 else FP8_FORWARD

    def _norm(self, shape: LayerShape, written: str) -> list[OpSpec]:
        x, w = self._hidden(), tensor(self.layout.precision.activation, self.model.hidden)
        out = tensor(written, *x.shape)
        if shape.norm is Norm.LAYER:
            mean = tensor("float32", self.tokens, 1)
            added = op("aten.add.Tensor", (x, x), (x,))
            return [added, op("aten.native_layer_norm", (x, w, w), (out, mean, mean))]
        return [op(kernels.FUSED_ADD_RMS_NORM, (x, x, w), (out, x))]

    def _summed(self) -> list[OpSpec]:
        if self.layout.tensor == 1:
            return []
        return [collective("allreduce_", _TENSOR, self._hidden(), self._hidden())]

    def _mixer(self, mixer: Mixer) -> list[OpSpec]:
        layout, hidden, rows = self.layout, self.model.hidden, self.tokens
        dtype, ways, into = layout.precision.activation, layout.tensor, layout.wide_inputs
        ops: list[OpSpec] = []
        if isinstance(mixer, GroupedQuery):
            heads, kv = split_heads(mixer.heads, ways), split_heads(mixer.kv_heads, ways)
            q = heads * mixer.head_dim
            wide = q * (2 if mixer.gated else 1) + 2 * kv * mixer.head_dim
            ops += self._linear(rows, hidden, wide, written=True, wide=into)
            if mixer.query_norm is not None:  # queries and keys together
                turned, w = tensor(dtype, rows * (heads + kv), mixer.head_dim), tensor(dtype, mixer.head_dim)
                ops.append(op(kernels.RMS_NORM, (turned, w), (turned,)))
            if mixer.rotary:
                ops.append(_rotary(dtype, rows, heads + kv, mixer.head_dim))
            for batch in self.batches:
                ops += softmax_core(mixer, ways, batch, dtype, layout.cache)
            if mixer.gated:
                out = tensor(dtype, rows, q)
                ops.append(op(kernels.FUSED, (out, out), (out,), ops=6))
            return [*ops, *self._linear(rows, q, hidden), *self._summed()]
        if isinstance(mixer, Latent):
            heads, qk = split_heads(mixer.heads, ways), mixer.nope_dim + mixer.rope_dim
            down = mixer.kv_rank + mixer.rope_dim + mixer.query_rank
            ops += self._linear(rows, hidden, down, written=True, wide=into)
            latent = tensor(dtype, rows, mixer.kv_rank + mixer.query_rank)
            weight = tensor(dtype, mixer.kv_rank + mixer.query_rank)
            ops.append(op(kernels.RMS_NORM, (latent, weight), (latent,)))
            ops += self._linear(rows, mixer.query_rank or hidden, heads * qk, wide=into)
            ops.append(_rotary(dtype, rows, heads + 1, mixer.rope_dim))
            for batch in self.batches:
                ops += latent_core(mixer, ways, batch, dtype, layout.cache)
            return [*ops, *self._linear(rows, heads * mixer.value_dim, hidden), *self._summed()]
        assert isinstance(mixer, GatedDelta)
        keys, values = split_heads(mixer.key_heads, ways), split_heads(mixer.value_heads, ways)
        value_width = values * mixer.value_dim
        ops += self._linear(rows, hidden, 2 * keys * mixer.key_dim + 2 * value_width, written=True, wide=into)
        # decay and beta stay in 16 bit, in a product of their own
        narrow = tensor(dtype, hidden, 2 * values)
        ops.append(op("aten.mm", (self._hidden(), narrow), (tensor(dtype, rows, 2 * values),)))
        for batch in self.batches:
            ops += delta_core(mixer, ways, batch, dtype)
        x, w = tensor(dtype, rows * values, mixer.value_dim), tensor(dtype, mixer.value_dim)
        ops.append(op(kernels.RMS_NORM, (x, w), (x,)))
        return [*ops, *self._linear(rows, value_width, hidden), *self._summed()]

    def _ffn(self, ffn: Ffn) -> list[OpSpec]:
        layout = self.layout
        if isinstance(ffn, DenseFfn):
            return [*self._dense(ffn, layout.tensor), *self._summed()]
        shared = DenseFfn(width=ffn.shared_width, gated=ffn.gated)
        # data-parallel attention keeps the shared expert whole: its tokens are this rank's own
        dense = self._dense(shared, 1 if layout.data > 1 else layout.tensor) if ffn.shared_width else []
        dense += self._joined(ffn)
        exchanged = layout.expert > 1 and layout.data > 1
        tail = [] if exchanged else self._summed()
        return [*self._routed(ffn, exchanged), *dense, *tail]

    def _joined(self, ffn: MoeFfn) -> list[OpSpec]:
        """The shared expert's output, times the sigmoid of its gate if it has one, added to the routed ones'."""
        if not ffn.shared_width:
            return []
        x, dtype = self._hidden(), self.layout.precision.activation
        if not ffn.shared_gate:
            return [op(kernels.FUSED, (x, x), (x,), ops=1)]
        gate = tensor(dtype, self.tokens, 1)
        return [
            op("aten.mm", (x, tensor(dtype, self.model.hidden, 1)), (gate,)),
            op(kernels.FUSED, (x, x, gate), (x,), ops=6),
        ]

    def _dense(self, ffn: DenseFfn, ways: int) -> list[OpSpec]:
        width, hidden = max(1, ffn.width // ways), self.model.hidden
        up = self._linear(self.tokens, hidden, width * (2 if ffn.gated else 1), written=True)
        return [
            *up,
            self._activation(self.tokens, width, ffn.gated, self._written),
            *self._linear(self.tokens, width, hidden, written=True),
        ]

    def _activation(self, rows: int, width: int, gated: bool, written: str) -> OpSpec:
        dtype = self.layout.precision.activation
        out = tensor(written, rows, width)
        if gated:
            return op(kernels.SWIGLU, (tensor(dtype, rows, 2 * width),), (out,))
        return op("aten.gelu", (tensor(dtype, rows, width),), (out,))

    def _routed(self, ffn: MoeFfn, exchanged: bool) -> list[OpSpec]:
        layout, hidden, rows = self.layout, self.model.hidden, self.tokens
        dtype = layout.precision.activation
        # whole slots: 256 experts on 144 ranks are two a rank, some of them twice
        experts = -(-(ffn.experts + layout.redundant) // layout.expert)
        width = max(1, ffn.width // (layout.cards // layout.expert))
        # without exchange every rank sees all tokens and keeps those of its experts
        share = 1 if exchanged else layout.expert
        received = max(1, round(rows * ffn.top_k * self.imbalance(ffn) / share))
        scores, chosen = tensor("float32", rows, ffn.experts), tensor("int64", rows, ffn.top_k)
        best = tensor("float32", rows, ffn.top_k)
        gate = tensor(dtype, hidden, ffn.experts)
        ops = [
            op("aten.mm", (self._hidden(), gate), (tensor(dtype, rows, ffn.experts),)),
            op("aten.topk", (scores,), (best, chosen)),
        ]
        up = width * (2 if ffn.gated else 1)
        eight_bit = layout.precision.is_fp8
        if eight_bit or layout.eight_bit_rows:  # once a token, before it is sent or copied to its experts
            ops += self._expert_products().cast(rows, hidden, transposed=False)
        if exchanged:
            ops.append(self._exchange("dispatch", ffn))
        moved = self.moved
        permuted, back = tensor(moved, received, hidden), tensor(dtype, received, hidden)
        direct = exchanged and self.decodes  # low-latency exchange delivers by expert and sums on return
        # what came to this rank, of all ranks' tokens: each is summed here over its local experts, and sent back
        came = max(1, round(rows * self._copies(ffn))) if exchanged else rows
        if not direct:
            ops.append(op(kernels.MOE_PERMUTE, (tensor(moved, came, hidden), chosen), (permuted,)))
        ops += self._grouped(received, hidden, up, experts, ffn.top_k)
        # activations write what the second product reads, but for blocks of scales in contiguous (prompts') layouts
        fused = layout.precision is not Precision.FP8_BLOCK or self.decodes
        ops.append(self._activation(received, width, ffn.gated, moved if fused else dtype))
        if eight_bit and not fused:
            ops += self._products().cast(received, width, transposed=False)
        ops += self._grouped(received, width, hidden, experts, ffn.top_k)
        if not direct:
            ops.append(op(kernels.MOE_UNPERMUTE, (back, chosen, best), (tensor(dtype, came, hidden),)))
        if exchanged:
            ops.append(self._exchange("combine", ffn))
        return ops

    def _copies(self, ffn: MoeFfn) -> float:
        """Ranks that a token is sent to, so many tokens come to the busiest for each of its own."""
        ranks = within_groups(self.layout.expert, ffn.groups, ffn.groups_chosen)
        return distinct(ranks, ffn.top_k) * self.imbalance(ffn)

    def imbalance(self, ffn: MoeFfn) -> float:
        """Load of the busiest expert rank of one layer over the mean, chance included."""
        layout = self.layout
        if layout.expert == 1:
            return layout.imbalance
        mean = self.tokens * ffn.top_k * (layout.cards // layout.tensor) / layout.expert
        return layout.imbalance * (busiest_draw(mean, layout.expert) if layout.drawn else 1.0)

    @property
    def decodes(self) -> bool:
        """Whether every sequence runs the decode kernels."""
        return all(batch.decodes for batch in self.batches)

    def _exchange(self, name: str, ffn: MoeFfn) -> OpSpec:
        layout = self.layout
        eight_bit = name == "dispatch" and (layout.precision.is_fp8 or layout.eight_bit_rows)
        dtype = FP8_FORWARD if eight_bit else self.layout.precision.activation
        sent = tensor(dtype, self.tokens, self.model.hidden)
        return collective(
            name,
            _EXPERT,
            sent,
            sent,
            -1,
            tokens=self.tokens,
            top_k=ffn.top_k,
            token_bytes=self.model.hidden * (1 if eight_bit else 2),
            groups=ffn.groups,
            groups_chosen=ffn.groups_chosen,
            imbalance=self.imbalance(ffn),
            experts=ffn.experts,
            low_latency=self.decodes,
            **({"as_of": layout.deepep} if layout.deepep else {}),
            **({"sms": layout.exchange_sms} if layout.exchange_sms and not self.decodes else {}),
        )

    def _grouped(self, rows: int, wide_in: int, wide_out: int, experts: int, top_k: int) -> list[OpSpec]:
        precision = self.layout.precision
        out = tensor(precision.activation, rows, wide_out)
        if precision is Precision.FP8_BLOCK:
            a, b = tensor(FP8_FORWARD, rows, wide_in), tensor(FP8_FORWARD, experts, wide_in, wide_out)
            blocks, across = max(1, wide_in // 128), max(1, wide_out // 128)
            scales = tensor("float32", rows, blocks), tensor("float32", experts, blocks, across)
            return [op(kernels.SCALED_GROUPED_GEMM, (a, b, *scales), (out,), top_k=top_k)]
        dtype = self.moved
        weights = FP4 if self.layout.narrow_experts else dtype
        a, b = tensor(dtype, rows, wide_in), tensor(weights, experts, wide_in, wide_out)
        return [op(kernels.GROUPED_GEMM, (a, b), (out,), top_k=top_k)]

    @property
    def moved(self) -> str:
        """dtype in which tokens reach their experts."""
        precision = self.layout.precision
        if self.layout.narrow_experts:
            return FP8_FORWARD if self.layout.eight_bit_rows else precision.activation
        if precision is Precision.NVFP4:
            return FP4
        return FP8_FORWARD if precision.is_fp8 else precision.activation


def busiest_draw(mean: float, ranks: int) -> float:
    """Expected load of the busiest of ``ranks`` over their mean when each is drawn by chance.

    Loads are nearly normal with variance ``mean``; the largest of n lies where Gumbel's law puts it (Fisher and
    Tippett 1928): sqrt(2 ln n) - (ln ln n + ln 4 pi) / (2 sqrt(2 ln n)) deviations above, its mean Euler's
    constant over sqrt(2 ln n) further.
    """
    if ranks < 2 or mean <= 0:
        return 1.0
    root = math.sqrt(2 * math.log(ranks))
    spread = math.log(math.log(ranks)) + math.log(4 * math.pi) - 2 * EULER
    return 1.0 + max(0.0, root - spread / (2 * root)) / math.sqrt(mean)


def _rotary(dtype: str, rows: int, heads: int, dim: int) -> OpSpec:
    x, table = tensor(dtype, rows, heads, dim), tensor("float32", rows, dim)
    return op(kernels.ROTARY, (x, table, table), (x,))
