"""Two small decoders in plain PyTorch: a Llama-like one and one with a mixture of experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Sizes of a decoder. ``experts`` 0: dense; else ``top_k`` of ``experts``, each of width ``ffn``."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    layers: int
    vocabulary: int
    experts: int = 0
    top_k: int = 0


class Attention(nn.Module):
    """Grouped-query attention with rotary positions, causal."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.qkv = nn.Linear(shape.hidden, queries + 2 * keys, bias=False)
        self.out = nn.Linear(queries, shape.hidden, bias=False)
        self.splits = [queries, keys, keys]

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Rows (batch, length, hidden) in and out; cosine and sine (length, head_dim)."""
        batch, length, _ = x.shape
        parts = self.qkv(x).split(self.splits, dim=-1)
        q, k, v = (part.view(batch, length, -1, self.shape.head_dim).transpose(1, 2) for part in parts)
        q, k = _rotated(q, cosine, sine), _rotated(k, cosine, sine)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return joined


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class GatedFfn(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.hidden, 2 * shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rows in, rows out."""
        gate, up = self.up(x).chunk(2, dim=-1)
        down: Tensor = self.down(functional.silu(gate) * up)
        return down


class Experts(nn.Module):
    """A mixture of SwiGLU experts as grouped products; nothing in it waits for the host."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.top_k, self.count = shape.top_k, shape.experts
        self.router = nn.Linear(shape.hidden, shape.experts, bias=False)
        self.up = nn.Parameter(torch.randn(shape.experts, shape.hidden, 2 * shape.ffn) * 0.02)
        self.down = nn.Parameter(torch.randn(shape.experts, shape.ffn, shape.hidden) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Rows in, rows out."""
        rows = x.reshape(-1, x.shape[-1])
        weights, chosen = torch.softmax(self.router(rows).float(), dim=-1).topk(self.top_k, dim=-1)
        expert = chosen.reshape(-1)
        order = expert.argsort()
        token = order // self.top_k
        ends = (expert[:, None] == torch.arange(self.count, device=x.device)).sum(0).cumsum(0).to(torch.int32)
        gate, up = functional.grouped_mm(rows[token], self.up, offs=ends).chunk(2, dim=-1)
        out = functional.grouped_mm(functional.silu(gate) * up, self.down, offs=ends)
        scaled = out * weights.reshape(-1)[order, None].to(out.dtype)
        return torch.zeros_like(rows).index_add(0, token, scaled).view_as(x)


class Layer(nn.Module):
    """Attention, then the feed-forward part, both normed before and added to their input."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (nn.LayerNorm(shape.hidden, bias=False) for _ in range(2))
        self.attention = Attention(shape)
        self.ffn = Experts(shape) if shape.experts else GatedFfn(shape)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Rows in, rows out."""
        x = x + self.attention(self.norm_1(x), cosine, sine)
        out: Tensor = x + self.ffn(self.norm_2(x))
        return out


class Decoder(nn.Module):
    """Embedding, layers, norm, output and cross-entropy."""

    def __init__(self, shape: BlockShape, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden, bias=False)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        half = torch.arange(0, shape.head_dim, 2) / shape.head_dim
        angles = torch.outer(torch.arange(length), ROPE_BASE**-half).repeat(1, 2)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of ids and labels (batch, length)."""
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cosine, self.sine)
        logits = self.head(self.norm(x))
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
