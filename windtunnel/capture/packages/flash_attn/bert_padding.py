"""Between padded (batch, length) and packed (tokens) layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def index_first_axis(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows of x by index."""
    return x[indices]


def unpad_input(
    hidden_states: torch.Tensor, attention_mask: torch.Tensor, unused_mask: Any = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """Packed states, their indices, cumulative lengths, the longest length, and the lengths."""
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = torch.nonzero(attention_mask.flatten(), as_tuple=False).flatten()
    cumulative = functional.pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0))
    packed = hidden_states.flatten(0, 1)[indices]
    return packed, indices, cumulative, int(lengths.max().item()), lengths


def pad_input(hidden_states: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int) -> torch.Tensor:
    """Packed states back in (batch, length, ...), zeros elsewhere."""
    out = hidden_states.new_zeros(batch * seqlen, *hidden_states.shape[1:])
    out[indices] = hidden_states
    return out.unflatten(0, (batch, seqlen))
