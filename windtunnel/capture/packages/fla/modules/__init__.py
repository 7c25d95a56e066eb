"""Norms in one kernel."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from windtunnel.capture.virtual_ops import layers as ops


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension."""

    def __init__(self, hidden_size: int, elementwise_affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size)) if elementwise_affine else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ops.rms_norm(x, self.weight, self.eps)


class FusedRMSNormGated(nn.Module):
    """RMS norm times the activation of a gate."""

    def __init__(
        self,
        hidden_size: int,
        elementwise_affine: bool = True,
        eps: float = 1e-5,
        activation: str = "swish",
        device: object = None,
        dtype: object = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.activation = functional.sigmoid if activation == "sigmoid" else functional.silu
        weight = torch.ones(hidden_size, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight) if elementwise_affine else None

    def forward(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        normed = ops.rms_norm(x, self.weight, self.eps)
        return (normed.float() * self.activation(g.float())).to(x.dtype)
