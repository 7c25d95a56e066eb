"""Seconds of an engine's forward step, from recipes priced on a card and a cluster. No PyTorch.

A step is a sum of parts, each priced where it is needed and kept:

    step = graph launch + layers without their attention cores (tokens) + output head (sequences)
         + decode core (sequences, mean context) + prefill core (new tokens, context) of every chunk, floors once

Layers of equal shape are priced once. Decode steps up to the largest captured graph are padded to the next
captured size, as engines do; other token counts are straight lines between points 19 % apart. Attention of a
decode batch is linear in the sum of contexts, so the mean stands for all.

With speculative tokens a decode step verifies ``1 + n`` tokens a sequence after ``n`` passes of one further
layer; ``decode_s`` is per token that comes out on average (arXiv 2211.17192, equation 1), ``whole_s`` the step.

With ``overlap`` the batch is cut in halves that take turns (``--enable-dbo``, see ``overlap``). Not here: padding of
prompts; vision towers are in ``vision``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from windtunnel.recipes.architecture import Architecture, MoeFfn
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.dense_layers import DenseLayers
from windtunnel.serving.grid import Line, Plane, captured, geometric
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.layer_prices import LayerPrices
from windtunnel.serving.request import Request
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.cluster import Cluster

TOKENS_MAX, CONTEXT_MAX = 1 << 20, 1 << 21
DBO_DECODE_TOKENS, DBO_PREFILL_TOKENS = 32, 512
"""vLLM 0.33's defaults."""
SHORTEST = 16
"""Tokens of the shortest chunk of a prompt that is priced: the floors of the attention kernels."""


class Tower(Protocol):
    """A vision tower in front of the model: ``merge`` patches of an image become one token."""

    @property
    def merge(self) -> int:
        """Patches of one token."""
        ...

    def seconds(self, patches: int) -> float:
        """One image."""
        ...


class StepTime(LayerPrices):
    """Step seconds of one attention rank of a replica; ``vision``: the tower, where the model has one.

    ``captures``: batch sizes with a captured graph, to the next of which decodes are padded; empty: vLLM's.
    ``prompt_graphs``: most tokens of a step with prompts that a captured graph holds.
    """

    vision: Tower | None = None

    def __init__(
        self,
        model: Architecture,
        layout: ServingLayout,
        cluster: Cluster,
        speculation: Speculation | None = None,
        overlap: bool = False,
        stack: Stack = Stack.VLLM,
        captures: Sequence[int] = (),
        prompt_graphs: float = float("inf"),
    ) -> None:
        super().__init__(model, layout, cluster, overlap, stack)
        self._drafts_beside_prompts = stack is not Stack.SGLANG  # whose mixed steps decode by one token each
        self.speculation = speculation or Speculation()
        self.prompt_graphs = prompt_graphs
        self._launch_s = cluster.chip.graph_launch_s.value if layout.graphs else 0.0
        graphs = sorted(captures) or captured()
        self._graphs = graphs if layout.graphs else []
        tokens = geometric(1, TOKENS_MAX, 4)
        self._decode_dense = DenseLayers(self, sorted({*graphs, *tokens}), decodes=True)
        self._mixed_dense = DenseLayers(self, tokens, decodes=False)
        self._head = Line(tokens, self._head_s)
        self._experts = Line(tokens, self._experts_s)
        contexts, batches = geometric(SHORTEST, CONTEXT_MAX, 2), sorted({*graphs, *tokens})
        self._decode_cores = Plane(batches, contexts, self._decode_cores_s)
        self._prefill_cores = Plane(
            geometric(SHORTEST, CONTEXT_MAX, 4), [0, *contexts], self._prefill_cores_s
        )
        self._draft_layer = Line(batches, self._draft_layer_s)
        self._draft_cores = Plane(batches, contexts, self._draft_cores_s)
        self._slopes: dict[tuple[int, int], tuple[float, float]] = {}

    def decode_s(self, decodes: int, contexts: int) -> float:
        """A step of ``decodes`` sequences with ``contexts`` tokens in all: seconds per token that comes out."""
        return self.decode_line(decodes, contexts)[0]

    def decode_line(self, decodes: int, contexts: int) -> tuple[float, float, int]:
        """Such a step, how much longer every following one is, and how many steps that holds for."""
        mean = contexts / decodes
        place = int(mean).bit_length()
        line = self._slopes.get((decodes, place))
        if line is None:
            low, high = (1 << place) >> 1, 1 << place
            first, last = self._decode_at(decodes, low), self._decode_at(decodes, high)
            slope = (last - first) / (high - low) if high > low else 0.0
            line = self._slopes[decodes, place] = (first - slope * low, slope)
        return line[0] + line[1] * mean, line[1], (1 << place) - int(mean)

    def mixed_s(self, decodes: int, contexts: int, chunks: Sequence[tuple[int, int]]) -> float:
        """A step that also computes prompt chunks of (new tokens, context).

        With drafts, the decoding sequences get more than the one token that they are counted; what decode steps they
        are spared for it, by their own price, is taken off.
        """
        seconds = self._mixed_whole_s(decodes, contexts, chunks, self.speculation.tokens)
        if self.speculation.tokens and decodes:
            each = self.decode_s(decodes, contexts)
            seconds = max(each, seconds - (self.speculation.yielded - 1) * each)
        return seconds

    def whole_s(self, decodes: int, contexts: int, chunks: Sequence[tuple[int, int]]) -> float:
        """A step that checks drafts, however many tokens come out of it."""
        if chunks:
            drafted = self.speculation.tokens if self._drafts_beside_prompts else 0
            return self._mixed_whole_s(decodes, contexts, chunks, drafted)
        return self.decode_s(decodes, contexts) * self.speculation.yielded if decodes else 0.0

    def _mixed_whole_s(
        self, decodes: int, contexts: int, chunks: Sequence[tuple[int, int]], drafted: int
    ) -> float:
        verified = decodes * (1 + drafted)
        tokens, core = verified, 0.0
        for new, context in chunks:
            tokens += new
            core += self._prefill_cores.at(new, context)
        if (
            len(chunks) > 1
        ):  # kernels take prompts of any lengths together: what one costs however short is paid once
            core -= (len(chunks) - 1) * self._floor_s
        if decodes:
            core += self._decode_core_s(decodes, contexts / decodes)
        around = self._launch_s + self._head.at(verified + len(chunks))
        seconds = around + self._with_core(self._mixed_dense, max(1, tokens), core)
        if drafted and decodes:
            seconds += drafted * self._draft_s(decodes, contexts / decodes)
        if tokens <= self.prompt_graphs:
            return seconds
        issued_s = self._issued_s(tokens) if self.overlap else self.issue_s
        return issued_s if issued_s > seconds else seconds

    def _issued_s(self, tokens: int) -> float:
        """The host's seconds for a step with prompts, both halves where it is cut."""
        halves = 2 if self.overlap and tokens >= self._least(decodes=False) else 1
        return halves * self.issue_s

    @cached_property
    def issue_s(self) -> float:
        """The host's seconds for every kernel of a step of one batch."""
        return self.priced(Batch(sequences=1, new=SHORTEST)).host

    def warm(self, sequences: int) -> None:
        """Price the batches up to ``sequences`` that will come, so that none is priced while a clock runs."""
        size = 1
        while size <= sequences:
            for context in (64, 1024, 16384):
                self.decode_s(size, size * context)
                self.mixed_s(size, size * context, [(min(512, 4 * size), 0)])
            size *= 2

    def images_s(self, request: Request, first: int, end: int) -> float:
        """The vision tower on the images of a prompt that begin at its tokens ``first`` to ``end``."""
        tower = self.vision
        if tower is None:
            return 0.0
        return sum(tower.seconds(patches) for patches in request.images_between(first, end, tower.merge))

    def experts_s(self, tokens: float) -> float:
        """Experts of all layers that exchange tokens, in a step with prompts of ``tokens`` tokens a rank.

        Where half-batches overlap they have no time of their own: 0.
        """
        if self.overlap or not self._exchanging:
            return 0.0
        return self._experts.at(max(1.0, tokens))

    def prefill_core_s(self, new: int, context: int) -> float:
        """Attention of one prompt chunk, all layers."""
        return self._prefill_cores.at(new, context)

    @cached_property
    def _floor_s(self) -> float:
        return self.prefill_core_s(SHORTEST, 0)

    # Decode

    def _decode_at(self, decodes: int, mean: float) -> float:
        drafted = self.speculation.tokens
        tokens = decodes * (1 + drafted)
        core = self._decode_core_s(decodes, mean)
        layers = self._with_core(self._decode_dense, self._padded(tokens), core)
        seconds = self._launch_s + layers + self._head.at(tokens)
        if drafted:
            seconds += drafted * self._draft_s(decodes, mean)
        return seconds / self.speculation.yielded

    def _padded(self, tokens: int) -> int:
        if not self._graphs or tokens > self._graphs[-1]:
            return tokens
        return next(size for size in self._graphs if size >= tokens)

    def _decode_core_s(self, decodes: int, mean: float) -> float:
        return self._decode_cores.at(decodes, max(1.0, mean))

    def _decode_cores_s(self, decodes: int, context: int) -> float:
        return self._cores_s(self._decode_batch(decodes, context))

    def _decode_batch(self, decodes: int, context: int) -> Batch:
        return Batch(sequences=decodes, new=1 + self.speculation.tokens, context=max(1, context))

    def _draft_s(self, decodes: int, mean: float) -> float:
        """One pass of the drafting layer (the last layer's shape) with the output head."""
        core = self._draft_cores.at(decodes, max(1.0, mean))
        return self._draft_layer.at(decodes) + core + self._head.at(decodes)

    def _draft_layer_s(self, decodes: int) -> float:
        return self._seconds(self._layer(self.model.layers[-1], Batch(sequences=decodes, context=1)))

    def _draft_cores_s(self, decodes: int, context: int) -> float:
        batch = Batch(sequences=decodes, context=context)
        return self._seconds(self.prices.total(self._core(self.model.layers[-1], batch)))

    # Parts

    def _with_core(self, dense: DenseLayers, tokens: int, core_s: float) -> float:
        if not self.overlap or tokens < self._least(dense.decodes):
            return dense.seconds(tokens) + core_s
        half = dense.at(tokens / 2)
        share = self._exchanging * core_s
        staged = dense.decodes and self.prices.stack is Stack.SGLANG
        each = share / len(half.turns)
        taken = sum(part.staged(each) if staged else part.both(each) for part in half.turns)
        return 2 * half.apart + core_s - share + taken

    def _least(self, decodes: bool) -> int:
        """Fewest tokens of a step that is cut in halves: SGLang cuts every one, whether or not that makes it shorter;
        vLLM has thresholds (``dbo_decode_token_threshold``, ``dbo_prefill_token_threshold``).
        """
        if self.prices.stack is Stack.SGLANG:
            return 2
        return DBO_DECODE_TOKENS if decodes else DBO_PREFILL_TOKENS

    @cached_property
    def _exchanging(self) -> float:
        """Share of the layers that exchange tokens."""
        layout, layers = self.layout, self.model.layers
        if layout.expert == 1 or layout.data == 1:
            return 0.0
        return sum(isinstance(shape.ffn, MoeFfn) for shape in layers) / len(layers)

    def _experts_s(self, tokens: int) -> float:
        return sum(part.experts for part in self.turns(Batch(sequences=1, new=tokens)))

    def _head_s(self, sequences: int) -> float:
        return self._seconds(
            self.prices.total(self._ops(replace(self.model, layers=()), Batch(sequences=sequences)))
        )

    def _prefill_cores_s(self, new: int, context: int) -> float:
        return self._cores_s(Batch(sequences=1, new=new, context=context))
