"""``flex_attention`` on the card: one operation forward, one backward, with the block mask's true sparsity.

Block masks are small integers and keep their values, so the fraction of blocks that are computed is known.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from windtunnel.capture import after_import, block_masks
from windtunnel.capture.meta import contiguous
from windtunnel.capture.tensor import VirtualTensor, fresh, inner, wrap
from windtunnel.program import kernels
from windtunnel.program.op import OpSpec


def install() -> None:
    """Patch flex attention when it is imported, or now if it was."""
    after_import.call("torch.nn.attention.flex_attention", _patch)


def _patch(module: ModuleType) -> None:
    """Give the higher-order operators of flex attention a kernel for card tensors."""
    from torch._higher_order_ops.flex_attention import flex_attention, flex_attention_backward

    target: Any = module
    target._validate_device = lambda *tensors: None
    flex_attention.py_impl(VirtualTensor)(_forward)
    flex_attention_backward.py_impl(VirtualTensor)(_backward)
    # outside compiled regions the operator is called as it is: tracing it first gains nothing here
    target._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    setattr(target.flex_attention, block_masks.UNCOMPILED, target.flex_attention)
    block_masks.patch(module)


def _density(block_mask: Any, query: VirtualTensor, key: VirtualTensor) -> float:
    """Computed blocks ÷ all blocks; 1 where the mask holds no values."""
    counts = [item for item in block_mask if isinstance(item, VirtualTensor) and item.dim() == 3]
    known = [count.host_values for count in counts[:2]]
    if not known or any(values is None for values in known):
        return 1.0
    sizes = [item for item in block_mask if isinstance(item, int)]
    lengths = sizes[:2] if len(sizes) >= 2 else [query.shape[2], key.shape[2]]
    block = sizes[-2:] if len(sizes) >= 4 else [128, 128]
    batch, heads, rows = counts[0].shape
    columns = -(-lengths[1] // block[1])
    computed = sum(int(values.sum()) for values in known if values is not None)
    return min(1.0, computed / max(1, batch * heads * rows * columns))


def _forward(
    query: VirtualTensor,
    key: VirtualTensor,
    value: VirtualTensor,
    score_mod: Any,
    block_mask: Any,
    scale: float,
    kernel_options: Any,
    score_mod_other_buffers: Any = (),
    mask_mod_other_buffers: Any = (),
) -> tuple[VirtualTensor, VirtualTensor, VirtualTensor]:
    recorder = VirtualTensor.state.recorder
    place = recorder.reserve()
    if all(tensor.host_values is not None for tensor in (query, key, value)):
        from torch._higher_order_ops.flex_attention import sdpa_dense

        plain = sdpa_dense(
            inner(query),
            inner(key),
            inner(value),
            score_mod,
            _on_host(block_mask),
            scale,
            kernel_options,
            _on_host(score_mod_other_buffers),
            _on_host(mask_mod_other_buffers),
        )
        out, lse, highest = (wrap(tensor) for tensor in plain)
    else:
        shape = (*query.meta.shape[:-1], value.meta.shape[-1])
        out = fresh(contiguous(query.meta.dtype, shape))
        lse, highest = (fresh(contiguous(torch.float32, shape[:-1])) for _ in range(2))
    recorder.fill(place, _spec(kernels.FLEX_ATTENTION, (query, key, value), (out, lse), block_mask))
    return out, lse, highest


def _on_host(value: Any) -> Any:
    return torch.utils._pytree.tree_map(
        lambda item: inner(item) if isinstance(item, VirtualTensor) else item, value
    )


def _backward(
    query: VirtualTensor,
    key: VirtualTensor,
    value: VirtualTensor,
    out: VirtualTensor,
    logsumexp: VirtualTensor,
    grad_out: VirtualTensor,
    grad_logsumexp: Any,
    fw_graph: Any,
    joint_graph: Any,
    block_mask: Any,
    scale: float,
    kernel_options: Any,
    score_mod_other_buffers: Any = (),
    mask_mod_other_buffers: Any = (),
) -> tuple[Any, ...]:
    recorder = VirtualTensor.state.recorder
    place = recorder.reserve()
    grads = tuple(fresh(contiguous(t.meta.dtype, t.meta.shape)) for t in (query, key, value))
    inputs = (grad_out, query, key, value, out, logsumexp)
    recorder.fill(place, _spec(kernels.FLEX_ATTENTION_BACKWARD, inputs, grads, block_mask))
    return (*grads, tuple(None for _ in score_mod_other_buffers))


def _spec(name: str, inputs: tuple[VirtualTensor, ...], outputs: Any, block_mask: Any) -> OpSpec:
    query, key = (inputs[0], inputs[1]) if name == kernels.FLEX_ATTENTION else (inputs[1], inputs[2])
    return OpSpec(
        name,
        tuple(tensor.meta.spec for tensor in inputs),
        tuple(tensor.meta.spec for tensor in outputs),
        (("density", _density(block_mask, query, key)),),
    )
