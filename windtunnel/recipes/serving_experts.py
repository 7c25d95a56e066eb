"""The experts of a serving step: router, exchange among ranks, grouped products, and how unevenly tokens fall."""

from __future__ import annotations

import math
from dataclasses import dataclass

from windtunnel.network.expert import distinct, within_groups
from windtunnel.program import kernels
from windtunnel.program.op import OpSpec
from windtunnel.recipes.architecture import MoeFfn
from windtunnel.recipes.layout import Layout, Precision
from windtunnel.recipes.linear import FP4, FP8_FORWARD, Products
from windtunnel.recipes.piece import collective, op, tensor
from windtunnel.recipes.serving_layout import EXPERT
from windtunnel.recipes.serving_pieces import StepPieces

EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class ExpertPieces(StepPieces):
    """Layers with experts, those that all tokens share aside."""

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
        popular = self.layout.imbalance
        return (popular.decode if self.decodes else popular.prompts) * self._drawn(ffn)

    def _drawn(self, ffn: MoeFfn) -> float:
        layout = self.layout
        if layout.expert == 1 or not layout.drawn:
            return 1.0
        mean = self.tokens * ffn.top_k * (layout.cards // layout.tensor) / layout.expert
        return busiest_draw(mean, layout.expert)

    def _exchange(self, name: str, ffn: MoeFfn) -> OpSpec:
        layout = self.layout
        eight_bit = name == "dispatch" and (layout.precision.is_fp8 or layout.eight_bit_rows)
        dtype = FP8_FORWARD if eight_bit else self.layout.precision.activation
        sent = tensor(dtype, self.tokens, self.model.hidden)
        return collective(
            name,
            EXPERT,
            sent,
            sent,
            -1,
            tokens=self.tokens,
            top_k=ffn.top_k,
            token_bytes=self.model.hidden * (1 if eight_bit else 2),
            groups=ffn.groups,
            groups_chosen=ffn.groups_chosen,
            imbalance=self.imbalance(ffn),
            node_imbalance=layout.imbalance.nodes * self._drawn(ffn),
            experts=ffn.experts,
            low_latency=self.decodes,
            **({"as_of": layout.deepep} if layout.deepep else {}),
            **({"sms": layout.exchange_sms} if layout.exchange_sms and not self.decodes else {}),
        )

    def _expert_products(self) -> Products:
        precision = Precision.MXFP8 if self.layout.eight_bit_rows else self.layout.precision
        return Products(Layout(cards=1, global_batch=1, sequence=self.tokens, precision=precision))

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
