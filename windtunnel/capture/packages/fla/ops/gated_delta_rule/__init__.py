"""The gated delta rule, chunked and recurrent. q, k (b, s, kh, dk); v (b, s, h, dv); g, beta (b, s, h)."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.capture.virtual_ops import deltanet as ops

CHUNK = 64


def chunk_gated_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Prefill and training. Packed sequences (``cu_seqlens``, batch 1) start from a state of their own.

    Without data one kernel stands for all of them, as in the real package; with data they go one by one.
    """
    factor = k.shape[-1] ** -0.5 if scale is None else scale
    data_less = isinstance(q, VirtualTensor) and q.host_values is None
    if cu_seqlens is None or (data_less and initial_state is None and not output_final_state):
        out, state = ops.gated_delta_chunk(
            q, k, v, g, beta, initial_state, factor, use_qk_l2norm_in_kernel, CHUNK
        )
        return out, state if output_final_state else None
    edges = cu_seqlens.tolist()
    parts = []
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        state = None if initial_state is None else initial_state[number : number + 1]
        pieces = (t[:, begin:end] for t in (q, k, v, g, beta))
        parts.append(ops.gated_delta_chunk(*pieces, state, factor, use_qk_l2norm_in_kernel, CHUNK))
    final = torch.cat([state for _, state in parts]) if output_final_state else None
    return torch.cat([out for out, _ in parts], 1), final


def fused_recurrent_gated_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Decoding: one or a few positions with a state (b, h, dk, dv)."""
    if cu_seqlens is not None:
        raise NotImplementedError("packed sequences in the recurrent form")
    factor = k.shape[-1] ** -0.5 if scale is None else scale
    weights = torch.ones_like(g) if beta is None else beta
    out, state = ops.gated_delta_recurrent(
        q, k, v, g, weights, initial_state, factor, use_qk_l2norm_in_kernel
    )
    return out, state if output_final_state else None
