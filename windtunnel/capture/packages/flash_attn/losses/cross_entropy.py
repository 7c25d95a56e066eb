"""Cross entropy in one kernel each way."""

from __future__ import annotations

import torch
from torch import nn

from windtunnel.capture.virtual_ops import layers as ops


class CrossEntropyLoss(nn.Module):
    """Mean, sum or none of the losses of logits (rows, classes)."""

    def __init__(
        self,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        inplace_backward: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "none", "sum"):
            raise NotImplementedError("Only support reduction = 'mean' or 'none' or 'sum'")
        self.ignore_index, self.reduction = ignore_index, reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        losses, _ = ops.cross_entropy(input, target, self.ignore_index, self.label_smoothing)
        if self.reduction == "none":
            return losses
        total = losses.sum()
        return total if self.reduction == "sum" else total / (target != self.ignore_index).sum()
