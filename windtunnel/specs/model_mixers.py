"""What mixes tokens in a layer, with its parameters and what one sequence keeps in the cache.

``cache_elements(tokens)`` grows with the sequence and is stored in the cache's precision;
``state_elements`` is of fixed size and stored in FP32, ``convolution_elements`` as activations are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class QueryNorm(StrEnum):
    """What queries and keys are normalised over."""

    NONE = "none"
    HEAD = "head"  # each head, one weight for all
    FULL = "full"  # all heads together


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Softmax attention: MHA, GQA, MQA. ``window`` 0 sees everything; ``gated`` has an output gate.

    ``chunk``: tokens see those before them in their own stretch of so many (Llama 4); 0: no stretches.

    ``rotary_dims``: numbers of a head that the rotary embedding turns; 0: all.
    """

    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False
    output_bias: bool = False
    query_norm: QueryNorm = QueryNorm.NONE
    gated: bool = False
    window: int = 0
    chunk: int = 0
    sinks: bool = False
    rotary_dims: int = 0

    def parameters(self, hidden: int) -> int:
        """Learned numbers."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        inward = queries * (2 if self.gated else 1) + 2 * keys
        bias = (inward if self.bias else 0) + (hidden if self.output_bias else 0)
        norm = {QueryNorm.NONE: 0, QueryNorm.HEAD: 2 * self.head_dim, QueryNorm.FULL: queries + keys}
        return hidden * (inward + queries) + bias + norm[self.query_norm] + (self.heads if self.sinks else 0)

    def cache_elements(self, tokens: int) -> int:
        """Keys and values."""
        return 2 * self.kv_heads * self.head_dim * (min(tokens, self.window) if self.window else tokens)

    state_elements = 0
    convolution_elements = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexer:
    """Picks the tokens that sparse attention looks at (DeepSeek sparse attention)."""

    heads: int
    head_dim: int
    top_k: int

    def parameters(self, hidden: int, query_rank: int) -> int:
        """Learned numbers: queries, one key head, its LayerNorm, head weights."""
        queries = self.heads * self.head_dim * query_rank
        return queries + self.head_dim * hidden + 2 * self.head_dim + self.heads * hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention (arXiv 2405.04434). ``query_rank`` 0: queries are not compressed."""

    heads: int
    query_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    indexer: Indexer | None = None

    def parameters(self, hidden: int) -> int:
        """Learned numbers."""
        queries = self.heads * (self.nope_dim + self.rope_dim)
        rank = self.query_rank
        inward = hidden * rank + rank + rank * queries if rank else hidden * queries
        latent = hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
        outward = self.kv_rank * self.heads * (self.nope_dim + self.value_dim)
        output = self.heads * self.value_dim * hidden
        index = self.indexer.parameters(hidden, rank or hidden) if self.indexer else 0
        return inward + latent + outward + output + index

    def cache_elements(self, tokens: int) -> int:
        """The latent and one rotary key for all heads; the indexer's key beside them."""
        index = self.indexer.head_dim if self.indexer else 0
        return tokens * (self.kv_rank + self.rope_dim + index)

    state_elements = 0
    convolution_elements = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """DeepSeek-V4's attention: one key-value head, a window of tokens and, beyond it, compressed ones.

    ``ratio`` tokens become one entry (0: the window only). Entries overlap where an indexer picks among them,
    which doubles the compressor's width.
    """

    heads: int
    head_dim: int
    query_rank: int
    output_rank: int
    output_groups: int
    window: int
    ratio: int = 0
    indexer: Indexer | None = None

    def parameters(self, hidden: int) -> int:
        """Learned numbers."""
        queries = self.heads * self.head_dim
        inward = hidden * self.query_rank + self.query_rank + self.query_rank * queries
        keys = hidden * self.head_dim + self.head_dim
        middle = self.output_groups * self.output_rank
        outward = queries // self.output_groups * middle + middle * hidden
        return self.heads + inward + keys + outward + self._compressor(hidden)

    def _compressor(self, hidden: int) -> int:
        if not self.ratio:
            return 0
        width = self.head_dim * (2 if self.indexer else 1)
        own = self.ratio * width + 2 * width * hidden + self.head_dim
        if self.indexer is None:
            return own
        inner = 2 * self.indexer.head_dim
        keys = self.ratio * inner + 2 * inner * hidden + self.indexer.head_dim
        queries = self.indexer.heads * self.indexer.head_dim * self.query_rank
        return own + keys + queries + self.indexer.heads * hidden

    def cache_elements(self, tokens: int) -> int:
        """Window entries, compressed entries, and the indexer's compressed keys."""
        entries = tokens // self.ratio if self.ratio else 0
        index = self.indexer.head_dim if self.indexer else 0
        return min(tokens, self.window) * self.head_dim + entries * (self.head_dim + index)

    state_elements = 0
    convolution_elements = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDelta:
    """Gated DeltaNet (arXiv 2412.06464) with a short convolution."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    convolution: int = 4

    @property
    def channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def parameters(self, hidden: int) -> int:
        """Learned numbers."""
        values = self.value_heads * self.value_dim
        inward = hidden * (self.channels + values + 2 * self.value_heads)
        own = self.channels * self.convolution + 2 * self.value_heads + self.value_dim
        return inward + own + values * hidden

    def cache_elements(self, tokens: int) -> int:
        """Nothing grows with the sequence."""
        return 0

    @property
    def state_elements(self) -> int:
        """The recurrent state of one sequence."""
        return self.value_heads * self.key_dim * self.value_dim

    @property
    def convolution_elements(self) -> int:
        """Inputs that the convolution looks back to."""
        return self.channels * (self.convolution - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba:
    """Mamba-2 (arXiv 2405.21060)."""

    heads: int
    head_dim: int
    state: int
    groups: int
    convolution: int = 4

    @property
    def inner(self) -> int:
        """Width inside the layer."""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Channels of the convolution."""
        return self.inner + 2 * self.groups * self.state

    def parameters(self, hidden: int) -> int:
        """Learned numbers."""
        inward = hidden * (self.inner + self.channels + self.heads)
        own = self.channels * (self.convolution + 1) + 3 * self.heads + self.inner
        return inward + own + self.inner * hidden

    def cache_elements(self, tokens: int) -> int:
        """Nothing grows with the sequence."""
        return 0

    @property
    def state_elements(self) -> int:
        """The recurrent state of one sequence."""
        return self.inner * self.state

    @property
    def convolution_elements(self) -> int:
        """Inputs that the convolution looks back to."""
        return self.channels * (self.convolution - 1)


Mixer = Attention | Latent | Compressed | GatedDelta | Mamba
