"""One forward step of a serving engine, as a program: prefill, decode, or both in one batch.

Attention is tensor parallel over ``tensor`` ranks, or data parallel (each rank its own sequences) with
experts spread over all ranks and tokens exchanged by dispatch and combine. Weights are in ``precision``,
activations and cache as said. What a scheduler does between steps is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.program import kernels
from windtunnel.program.marks import GRAPH_END, GRAPH_LAUNCH
from windtunnel.program.op import OpSpec
from windtunnel.program.program import Phase, Program, StepKind
from windtunnel.recipes.architecture import (
    Architecture,
    DenseFfn,
    Ffn,
    GatedDelta,
    GroupedQuery,
    Latent,
    Mixer,
    MoeFfn,
)
from windtunnel.recipes.builder import ProgramBuilder
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layers.attention import split_heads
from windtunnel.recipes.layers.cached import Batch, delta_core, latent_core, softmax_core
from windtunnel.recipes.piece import collective, op, tensor
from windtunnel.recipes.serving_experts import ExpertPieces
from windtunnel.recipes.serving_layout import TENSOR, ServingLayout, groups_of
from windtunnel.specs.model import ModelSpec


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
    builder = ProgramBuilder(groups_of(layout), rank=0, world_size=layout.cards, name="serving step")
    ops = step.operations()
    if layout.graphs:
        launched = sum(1 for _ in ops)
        builder.add((OpSpec(GRAPH_LAUNCH, attributes=(("kernels", launched),)),), Phase.FORWARD)
    builder.add(ops, Phase.FORWARD, "model")
    if layout.graphs:
        builder.add((OpSpec(GRAPH_END),), Phase.FORWARD)
    kind = StepKind.DECODE if step.decodes else StepKind.PREFILL
    return builder.finish(kind, tokens=tokens, samples=sum(batch.sequences for batch in batches))


@dataclass(frozen=True, slots=True)
class _Step(ExpertPieces):
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
            ops.append(collective("_allgather_base_", TENSOR, logits, whole))
        scores = tensor("float32", sequences, rows * ways)
        ops.append(op("aten._softmax", (scores,), (scores,)))
        ops.append(op("aten.argmax", (scores,), (tensor("int64", sequences),)))
        return ops

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


def _rotary(dtype: str, rows: int, heads: int, dim: int) -> OpSpec:
    x, table = tensor(dtype, rows, heads, dim), tensor("float32", rows, dim)
    return op(kernels.ROTARY, (x, table, table), (x,))
