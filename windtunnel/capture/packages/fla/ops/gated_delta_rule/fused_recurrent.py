"""The autograd function that programs name to register it elsewhere; the virtual kernel has its own."""

from __future__ import annotations

import torch

from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule

__all__ = ["FusedRecurrentFunction", "fused_recurrent_gated_delta_rule"]


class FusedRecurrentFunction(torch.autograd.Function):
    """A name only: ``fused_recurrent_gated_delta_rule`` is what runs."""
