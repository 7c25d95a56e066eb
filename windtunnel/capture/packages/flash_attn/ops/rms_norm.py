"""RMS norm in one kernel, with and without a residual."""

from __future__ import annotations

import torch
from torch import nn

from windtunnel.capture.virtual_ops import layers as ops


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """x / rms(x) * weight over the last dimension."""
    return ops.rms_norm(x, weight, epsilon)


class RMSNorm(nn.Module):
    """A module of the same."""

    def __init__(self, hidden_size: int, eps: float = 1e-5, device: object = None, dtype: object = None):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.rms_norm(x, self.weight, self.eps)
