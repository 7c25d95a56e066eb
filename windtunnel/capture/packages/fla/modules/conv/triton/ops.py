"""The autograd function that programs name to register it elsewhere; the virtual kernel has its own."""

from __future__ import annotations

import torch


class CausalConv1dFunction(torch.autograd.Function):
    """A name only: ``fla.modules.conv.causal_conv1d`` is what runs."""
