"""causal-conv1d's interface on virtual kernels."""

from __future__ import annotations

from typing import Any

import torch

from windtunnel.capture.virtual_ops import convolution as ops

__version__ = "1.5.2"


def _silu(activation: str | None) -> bool:
    if activation not in (None, "silu", "swish"):
        raise NotImplementedError("activation must be None, silu, or swish")
    return activation is not None


def causal_conv1d_fn(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    seq_idx: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: torch.Tensor | None = None,
    activation: str | None = None,
) -> Any:
    """x (b, channels, s), weight (channels, width)."""
    if initial_states is not None:
        joined = torch.cat([initial_states, x], -1)
        out = ops.causal_conv1d(joined, weight, bias, _silu(activation))
        out = out[..., initial_states.shape[-1] :]
    else:
        out = ops.causal_conv1d(x, weight, bias, _silu(activation))
    return (out, x[..., -(weight.shape[-1] - 1) :]) if return_final_states else out


def causal_conv1d_update(
    x: torch.Tensor,
    conv_state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: torch.Tensor | None = None,
    conv_state_indices: torch.Tensor | None = None,
) -> torch.Tensor:
    """x (b, channels) or (b, channels, s); ``conv_state`` (b, channels, width) is written."""
    single = x.dim() == 2
    out = ops.causal_conv1d_update(x[..., None] if single else x, conv_state, weight, bias, _silu(activation))
    return out[..., 0] if single else out
