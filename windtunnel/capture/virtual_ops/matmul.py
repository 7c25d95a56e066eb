"""Block-scaled FP8 products, dense and grouped: DeepGEMM's recipe of 1×128 and 128×128 scales.

Forward only, as the packages that offer them; training code composes its own gradients from these.
"""

from __future__ import annotations

import torch

from windtunnel.capture.virtual_ops.library import define

BLOCK = 128


def _dequantise(x: torch.Tensor, scale: torch.Tensor, rows: int) -> torch.Tensor:
    """x (..., m, k) with one scale per ``rows`` × 128 block, as float32."""
    expanded = scale.float().repeat_interleave(BLOCK, -1)[..., : x.shape[-1]]
    if rows > 1:
        expanded = expanded.repeat_interleave(rows, -2)[..., : x.shape[-2], :]
    return x.float() * expanded


def _block_scaled(
    a: torch.Tensor, b: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor, block: int
) -> torch.Tensor:
    """a (m, k) times b (n, k) transposed, in bfloat16."""
    product = _dequantise(a, scale_a, 1) @ _dequantise(b, scale_b, block).T
    return product.bfloat16()


def _grouped(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    group_lens: list[int],
) -> torch.Tensor:
    """Rows of a (t, k) in groups, each with its own b[e] (n, k); bfloat16."""
    parts = _dequantise(a, scale_a, 1).split(group_lens)
    weights = _dequantise(b, scale_b, BLOCK)
    outs = [part @ weight.T for part, weight in zip(parts, weights, strict=True)]
    return torch.cat(outs).bfloat16()


block_scaled_gemm = define(
    "block_scaled_gemm",
    "(Tensor a, Tensor b, Tensor scale_a, Tensor scale_b, int block) -> Tensor",
    lambda a, b, scale_a, scale_b, block: a.new_empty(a.shape[0], b.shape[0], dtype=torch.bfloat16),
    _block_scaled,
)
scaled_grouped_gemm = define(
    "scaled_grouped_gemm",
    "(Tensor a, Tensor b, Tensor scale_a, Tensor scale_b, int[] group_lens) -> Tensor",
    lambda a, b, scale_a, scale_b, group_lens: a.new_empty(a.shape[0], b.shape[1], dtype=torch.bfloat16),
    _grouped,
)
