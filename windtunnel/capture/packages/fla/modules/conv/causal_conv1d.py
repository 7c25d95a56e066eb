"""Depthwise causal convolution over (b, s, d), weight (d, width)."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.capture.virtual_ops.convolution import causal_conv1d as convolve


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    activation: str | None = None,
    backend: str | None = None,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Packed documents (``cu_seqlens``, batch 1) start anew; without data one kernel stands for all of them."""
    if initial_state is not None or output_final_state:
        raise NotImplementedError("the short convolution with a state")
    silu = activation in ("silu", "swish")
    channels = x.transpose(1, 2)
    if cu_seqlens is None or (isinstance(x, VirtualTensor) and x.host_values is None):
        out = convolve(channels, weight, bias, silu)
    else:
        edges = (cu_seqlens if cu_seqlens_cpu is None else cu_seqlens_cpu).tolist()
        parts = [
            convolve(channels[..., begin:end], weight, bias, silu) for begin, end in itertools.pairwise(edges)
        ]
        out = torch.cat(parts, -1)
    out = out.transpose(1, 2)
    return (out if residual is None else out + residual), None
