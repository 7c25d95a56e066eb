"""Rotary embedding in one kernel."""

from __future__ import annotations

from typing import Any

import torch

from windtunnel.capture.virtual_ops import layers as ops


def apply_rotary_emb(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool = False,
    inplace: bool = False,
    seqlen_offsets: Any = 0,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: int | None = None,
) -> torch.Tensor:
    """x (b, s, h, d) turned by cos, sin (s, rotary_dim / 2)."""
    if isinstance(seqlen_offsets, int) and seqlen_offsets:
        cos, sin = cos[seqlen_offsets:], sin[seqlen_offsets:]
    return ops.rotary(x, cos, sin, interleaved)


apply_rotary_emb_func = apply_rotary_emb
