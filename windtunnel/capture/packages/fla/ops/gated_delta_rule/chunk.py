"""The autograd function that programs name to register it elsewhere; the virtual kernel has its own."""

from __future__ import annotations

import torch

from fla.ops.gated_delta_rule import chunk_gated_delta_rule

__all__ = ["ChunkGatedDeltaRuleFunction", "chunk_gated_delta_rule"]


class ChunkGatedDeltaRuleFunction(torch.autograd.Function):
    """A name only: ``chunk_gated_delta_rule`` is what runs."""
