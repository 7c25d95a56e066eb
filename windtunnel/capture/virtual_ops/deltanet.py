"""Gated DeltaNet: the chunked form for prefill and training, the recurrent one for decoding.

Per head, with a state S of shape (dk, dv):  S ← exp(g) S;  S ← S + k (β (v − Sᵀ k))ᵀ;  o = Sᵀ q · scale
(Gated Delta Networks, arXiv 2412.06464). The chunked form computes the same in blocks; the reference here
is the recurrence for both.
"""

from __future__ import annotations

from typing import Any

import torch

from windtunnel.capture.virtual_ops.library import define, differentiate, reference_gradients

_TENSORS = "Tensor q, Tensor k, Tensor v, Tensor g, Tensor beta, Tensor? state"


def _recurrence(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor | None,
    scale: float,
    normalise: bool,
    chunk: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q, k (b, s, kh, dk); v (b, s, h, dv); g, beta (b, s, h). Returns out (b, s, h, dv) and the state."""
    groups = v.shape[2] // k.shape[2]
    query, key, value = q.float(), k.float(), v.float()
    if normalise:
        query = query * torch.rsqrt(query.square().sum(-1, keepdim=True) + 1e-6)
        key = key * torch.rsqrt(key.square().sum(-1, keepdim=True) + 1e-6)
    query = query.repeat_interleave(groups, 2) * scale
    key = key.repeat_interleave(groups, 2)
    batch, length, heads, width = value.shape
    memory = value.new_zeros(batch, heads, key.shape[-1], width) if state is None else state.float()
    outs = []
    for t in range(length):
        memory = memory * g[:, t].float().exp()[..., None, None]
        recalled = torch.einsum("bhkv,bhk->bhv", memory, key[:, t])
        update = (value[:, t] - recalled) * beta[:, t].float()[..., None]
        memory = memory + key[:, t, :, :, None] * update[:, :, None, :]
        outs.append(torch.einsum("bhkv,bhk->bhv", memory, query[:, t]))
    out = torch.stack(outs, 1) if outs else value.new_empty(value.shape)
    return out.to(v.dtype), memory


def _shape(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, _length, heads, width = v.shape
    state = v.new_empty(batch, heads, k.shape[-1], width, dtype=torch.float32)
    return v.new_empty(v.shape), state


def _backward_shape(grad: torch.Tensor, grad_state: Any, *tensors: Any) -> tuple[torch.Tensor, ...]:
    inputs = tensors[:6]
    state = inputs[5] if inputs[5] is not None else inputs[2].new_empty(0)
    return tuple(t.new_empty(t.shape) for t in (*inputs[:5], state))


def _backward(
    grad: torch.Tensor,
    grad_state: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor | None,
    scale: float,
    normalise: bool,
    chunk: int,
) -> tuple[torch.Tensor | None, ...]:
    def function(*tensors: Any) -> Any:
        query, key, value, decay, weight, memory = tensors
        return _recurrence(query, key, value, decay, weight, memory, scale, normalise, chunk)

    inputs = (q, k, v, g, beta, state)
    if grad_state is None:
        grad_state = v.new_zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1], dtype=torch.float32)
    found = reference_gradients(function, inputs, (grad, grad_state))
    return (*found[:5], found[5] if state is not None else v.new_empty(0))


gated_delta_chunk = define(
    "gated_delta_chunk",
    f"({_TENSORS}, float scale, bool normalise, int chunk) -> (Tensor, Tensor)",
    _shape,
    _recurrence,
)
gated_delta_chunk_backward = define(
    "gated_delta_chunk_backward",
    f"(Tensor grad, Tensor? grad_state, {_TENSORS}, float scale, bool normalise, int chunk) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_shape,
    _backward,
)
gated_delta_recurrent = define(
    "gated_delta_recurrent",
    f"({_TENSORS}, float scale, bool normalise) -> (Tensor, Tensor)",
    _shape,
    _recurrence,
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.arguments = inputs[6:]
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: torch.Tensor, grad_state: torch.Tensor | None) -> tuple[Any, ...]:
    scale, normalise, *chunk = ctx.arguments
    saved = ctx.saved_tensors  # once: under checkpointing every look computes them again
    found = gated_delta_chunk_backward(grad, grad_state, *saved, scale, normalise, chunk[0] if chunk else 0)
    state = found[5] if saved[5] is not None else None
    return (*found[:5], state, *(None for _ in ctx.arguments))


differentiate("gated_delta_chunk", _gradient, _save)
differentiate("gated_delta_recurrent", _gradient, _save)
